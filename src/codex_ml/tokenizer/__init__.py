"""Train a tokenizer or take a local one, and measure it."""
