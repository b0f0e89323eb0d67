"""Decoded frames in HDF5 shards."""
