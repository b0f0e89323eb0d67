"""A split through a network: encode, compare, rank, measure."""
