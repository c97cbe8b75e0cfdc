"""Many images: which, where the results go, what is done, by one process or by a cluster."""
