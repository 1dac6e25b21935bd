"""Read packed rows and run them through a model: rows, masks, hardware, and loading a trained model.

It also holds the contracts of the files of `pack` and `train`. Used by: pack, train, inference, safety_audit, report.
"""
