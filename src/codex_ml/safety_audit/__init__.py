"""Audit a model: scan text for secrets, measure verbatim extraction, and decide the gates.

Used by: stages/safety_audit.py.
"""
