"""Stage two: score cache -> student."""
