"""A look at every pixel of a data set: what would make training fail, mislead or waste time, and how to mend it."""
