"""Penstock: an event-driven MLOps platform, from a corrected label to a better served model."""

__version__ = "0.1.0"
