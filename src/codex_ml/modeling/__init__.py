"""Models from scratch, in the Hugging Face layout."""
