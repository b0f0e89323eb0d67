"""Stage one: frozen teachers -> score cache."""
