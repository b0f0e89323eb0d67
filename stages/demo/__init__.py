"""The rendered data set and its small CLIP."""
