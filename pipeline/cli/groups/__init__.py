"""One file per noun that has verbs of its own."""
