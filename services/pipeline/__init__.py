"""Pipelines: when an event happens, do these steps; and why one ran or did not."""
