"""What every stage and command stands on: files, errors, parameters, the pipeline, processes."""
