"""Find all pairs of documents whose Jaccard similarity reaches a threshold, and keep one document of each family.

Used by: split.deal, split.screen.
"""
