"""Report -> HTML."""
