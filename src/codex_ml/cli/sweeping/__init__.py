"""What `codex-ml sweep` is made of: the space of parameters, proposals, the journal, one trial, early stopping."""
