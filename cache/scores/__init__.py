"""The score store (Zarr)."""
