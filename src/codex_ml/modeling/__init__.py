"""From packed rows to logits. Used by: pack, train, inference."""
