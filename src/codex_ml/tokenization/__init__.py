"""How text is cut into tokens, and back."""
