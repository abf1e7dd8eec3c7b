"""Where things came from and what they led to: a projection of all events."""
