"""How good a model version is on a dataset version, and whether that is good enough."""
