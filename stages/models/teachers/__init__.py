"""One file per teacher network."""
