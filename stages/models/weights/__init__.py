"""Weights files, read without running code; tensor names and sizes."""
