"""Features of videos and captions that others have made: read from their files, kept, and brought into batches."""
