"""Known data sets in the folders they are downloaded as, and other tools' annotations: no file is converted."""
