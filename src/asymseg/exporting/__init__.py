"""Leaving Python: files for other runtimes, each proven equal to the network before it gets its name."""
