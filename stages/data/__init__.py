"""Data sets, decoding, frame choice, captions, tokens."""
