"""The tokenizer at run time: text to ids and back, chat templates. Used by: tokenizer, pack, evaluate, safety_audit."""
