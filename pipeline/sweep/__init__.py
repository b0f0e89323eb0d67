"""Many runs, one table; the paper's tables."""
