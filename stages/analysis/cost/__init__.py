"""Operations, bytes, memory, milliseconds."""
