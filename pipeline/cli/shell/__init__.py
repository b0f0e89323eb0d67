"""What every verb runs inside: options, output, errors."""
