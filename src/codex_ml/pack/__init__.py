"""Encode the splits and pack whole documents into rows."""
