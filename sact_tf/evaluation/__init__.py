"""What networks reach and what they cost."""
