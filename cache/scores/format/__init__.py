"""Arrays and codes of a tile, their metadata and sizes."""
