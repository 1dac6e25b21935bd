"""Prepare the model to train, and save it in the Hugging Face layout.

`prepare` builds a model from scratch or loads one that may be hostile, fits its vocabulary, probes it for leaks between
documents and adds adapters. `describe` describes it in training.json. Used by: stages/train.py, train.loop.
"""
