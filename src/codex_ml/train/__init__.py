"""Train a model on packed rows: one loop, with schedule, checkpoints, exact resume and curves.

`loop.train_model` runs it; `run.Run` is its state. The package `model` prepares the model and saves it.
Used by: stages/train.py.
"""
