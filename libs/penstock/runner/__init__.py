"""What runs inside a job: inputs, code, the command and its limits, metrics, outputs, and last the result."""
