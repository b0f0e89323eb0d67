"""Vectors for other programs: files, and the databases where people keep vectors."""
