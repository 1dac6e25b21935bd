"""Find all pairs of documents whose Jaccard similarity reaches a threshold, and keep one of each family."""
