"""Runs -> one HTML page."""
