"""What teachers know, what students look at, what it costs."""
