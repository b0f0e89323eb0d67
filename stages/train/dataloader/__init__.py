"""What a step needs, read ahead."""
