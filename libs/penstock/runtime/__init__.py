"""What every process needs to run: settings, lifecycle, metrics, logs."""
