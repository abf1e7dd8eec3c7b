"""What runs inside Triton's Python backend; copied into model repositories, never imported by Penstock."""
