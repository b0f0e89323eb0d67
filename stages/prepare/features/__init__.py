"""Experts and text encoders -> feature caches."""
