"""Download the sample corpus, pinned by SHA-256."""
