"""A student's two towers as files that other programs run."""
