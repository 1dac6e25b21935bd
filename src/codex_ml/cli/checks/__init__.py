"""What `codex-ml check` finds before any work is done."""
