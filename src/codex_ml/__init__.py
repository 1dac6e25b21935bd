"""codex-ml: declarative, DVC-versioned training, evaluation and safety audit of language models, offline."""

__version__ = "0.1.0"
