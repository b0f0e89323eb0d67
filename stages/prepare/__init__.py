"""Stage zero: videos and captions -> frame cache."""
