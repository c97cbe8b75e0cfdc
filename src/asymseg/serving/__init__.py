"""HTTP: models behind a web page and an API, on one machine, safe unless told otherwise."""
