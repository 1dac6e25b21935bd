"""A trained model, asked: likelihood and generation. Used by: evaluate, safety_audit."""
