"""The whole chain on rendered clips."""
