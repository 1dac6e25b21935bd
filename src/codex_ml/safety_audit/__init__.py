"""What the model leaks, copies or emits."""
