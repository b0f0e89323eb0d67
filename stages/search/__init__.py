"""Student -> vectors, answers."""
