"""Read sources of every kind into one corpus."""
