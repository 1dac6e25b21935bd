"""Use a trained model: the likelihood of documents, and generated text.

It also holds the contracts of the files of `evaluate` and `safety_audit`. Used by: evaluate, safety_audit, report.
"""
