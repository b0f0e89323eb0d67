"""Windows of videos and their vectors: one SQLite database a library, and the matrices that are derived from it."""
