"""The model to train: built or loaded, adapted, probed, saved in the Hugging Face layout."""
