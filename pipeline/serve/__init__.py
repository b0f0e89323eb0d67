"""A web page and an HTTP API over an index."""
