"""One training loop: schedule, checkpoints, exact resume, curves."""
