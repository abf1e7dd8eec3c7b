"""Hyper-parameter studies, whose trials are training runs."""
