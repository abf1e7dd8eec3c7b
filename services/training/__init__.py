"""Training runs, their attempts, metrics, logs and artifacts; models and their versions."""
