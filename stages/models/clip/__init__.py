"""The open_clip trunk, its tokens and pixels."""
