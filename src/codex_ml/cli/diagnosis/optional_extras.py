"""The optional extras of pyproject.toml: which are installed, and what each of the others would give.

Used by: `codex-ml doctor`.
"""

from __future__ import annotations

from collections.abc import Iterator

from codex_ml.cli.diagnosis.doctor_finding import DoctorFinding, bad, ok
from codex_ml.core.errors import UserError
from codex_ml.core.packages import NAME, PROJECT, install_extra, installed_versions, normal
from codex_ml.core.yaml import read_text

GIVES = {
    "dev": "tests, hooks, types and style for changes of the library",
    "fast": "encoding of large corpora five times as fast, with the same ids",
    "gguf": "GGUF files as base models, and `codex-ml export gguf`",
    "quantization": "model.quantization: base weights of 8 or 4 bits under an adapter, on a GPU",
    "serve": "`codex-ml serve`: the model behind an OpenAI-style endpoint",
    "sweep": "`codex-ml sweep` with optuna's samplers",
    "mlflow": "curves in MLflow (runtime.trackers)",
    "prometheus": "metrics of a running training for Prometheus (runtime.prometheus_port)",
    "tensorboard": "curves in TensorBoard (runtime.trackers)",
    "wandb": "curves in W&B's offline files (runtime.trackers)",
}


def requirements() -> dict[str, list[str]]:
    """Extra -> names of the distributions that it needs, from pyproject.toml.

    Raises:
        UserError: when pyproject.toml is not the one of this project.
    """
    import tomllib

    try:
        extras = tomllib.loads(read_text(PROJECT))["project"]["optional-dependencies"]
        return {extra: [match[0] for line in lines if (match := NAME.match(line))] for extra, lines in extras.items()}
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{PROJECT} is not the one of this project ({error})") from None


def extras() -> Iterator[DoctorFinding]:
    """One finding per extra. `codex-ml check` names an extra that params.yaml needs and that is missing."""
    installed = installed_versions()
    try:
        needed = requirements()
    except UserError as error:
        yield bad("extras", str(error), f"git checkout {PROJECT}")
        return
    for extra, names in sorted(needed.items()):
        gives = GIVES.get(extra, "described in pyproject.toml")
        missing = [name for name in names if normal(name) not in installed]
        if missing:
            text = f"{extra}: not installed ({', '.join(missing)}); it gives {gives}"
            yield ok("extras", text, install_extra(extra).removeprefix("run `").removesuffix("`"))
        else:
            yield ok("extras", f"{extra}: installed; it gives {gives}")
