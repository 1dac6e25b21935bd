"""The stage `tokenizer`: train a tokenizer or import a local one, and measure it.

Used by: stages/tokenizer.py, and `codex-ml check`, which reads the files of a local tokenizer.
"""
