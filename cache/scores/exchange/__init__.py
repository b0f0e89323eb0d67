"""Stores merged, exported, imported, uploaded."""
