"""teachclip: distil heavy text-to-video retrieval models into one vector per video."""

__version__ = "0.1.0"
