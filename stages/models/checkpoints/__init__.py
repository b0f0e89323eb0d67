"""Networks as files: ours and published ones."""
