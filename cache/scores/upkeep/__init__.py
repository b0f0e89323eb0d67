"""A store listed, checked, compared, tidied."""
