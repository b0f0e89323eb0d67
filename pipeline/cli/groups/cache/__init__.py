"""`teachclip cache`."""
