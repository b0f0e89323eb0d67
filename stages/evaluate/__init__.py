"""Models and test sets -> ranks and metrics."""
