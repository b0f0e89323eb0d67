"""One video file -> frames."""
