"""How good the model is, and how sure we are."""
