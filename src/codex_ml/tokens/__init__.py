"""The tokenizer at run time.

It turns text into ids and back, and renders chat templates. Used by: tokenizer, pack, evaluate, safety_audit.
"""
