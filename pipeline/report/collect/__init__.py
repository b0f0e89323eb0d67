"""Run folders -> Report."""
