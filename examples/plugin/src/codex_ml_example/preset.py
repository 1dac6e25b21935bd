"""A preset: values for keys of `model` in params.yaml."""

NANO = {
    "architecture": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "layers": 2,
    "heads": 2,
    "max_positions": 256,
}
