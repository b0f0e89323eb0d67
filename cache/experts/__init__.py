"""The feature cache: what frozen networks of others make of videos (experts) and of captions (words)."""
