"""Models: built from scratch or loaded from disk, adapted, probed, in the Hugging Face layout."""
