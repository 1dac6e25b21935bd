"""One tiny plug-in of each kind for codex-ml. Each module holds one, and none imports codex-ml."""
