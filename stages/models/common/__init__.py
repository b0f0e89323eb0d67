"""What every video-text network has."""
