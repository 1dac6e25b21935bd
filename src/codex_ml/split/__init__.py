"""What may be trained on, and a test set that is clean of it."""
