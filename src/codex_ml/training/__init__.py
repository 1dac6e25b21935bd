"""One loop: schedule, checkpoints, exact resume, tracking."""
