"""The base of all stages and commands: files, hashes, errors, parameters, the pipeline, processes.

It runs a stage (`stage.run_stage`), writes every file atomically (`io`), and turns each failure into one line with an
exit code (`errors`). It imports no other package of the library, except that `stage` loads `cli.param_rules`, which
validates all of params.yaml. Used by: every stage, every noun, `codex-ml`.
"""
