"""Which plug-ins params.yaml and data/policy.yaml name. Used by: `codex-ml check`, `codex-ml plugins`."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from codex_ml.cli.param_rules import Params
from codex_ml.core.config import TRACKERS
from codex_ml.core.plugins import KINDS
from codex_ml.ingest.config import BUILT_IN as READERS
from codex_ml.modeling.pack_files import TEMPLATES
from codex_ml.split.config import AUGMENTERS
from codex_ml.tokenizer.config import BUILT_IN as TOKENIZERS
from codex_ml.train.config import ARCHITECTURES
from codex_ml.train.presets import catalogue


def named_plugins(params: Params, detectors: Iterable[str]) -> dict[str, list[str]]:
    """The names of the plug-ins of each kind that has a lock, sorted; what is built in is left out.

    Args:
        detectors: `detectors` of data/policy.yaml.
    """
    named: dict[str, Iterable[str]] = {
        "detectors": detectors,
        **params.ingest.plugins,
        **params.split.plugins,
        **params.pack.plugins,
        **params.tokenizer.plugins,
        **params.model.plugins,
    }
    return {kind: sorted(set(named[kind])) for kind in KINDS if KINDS[kind].locked}


def built_in_names(kind: str) -> Collection[str]:
    """What codex-ml itself has of a kind; a plug-in with such a name is never used."""
    if kind == "metrics":
        from codex_ml.evaluate.metrics.registry import built_in_metrics  # with numpy

        return built_in_metrics()
    if kind == "presets":
        return catalogue()
    return BUILT_IN.get(kind, ())


BUILT_IN: dict[str, tuple[str, ...]] = {
    "architectures": ARCHITECTURES,
    "augmenters": AUGMENTERS,
    "readers": READERS,
    "templates": TEMPLATES,
    "tokenizers": TOKENIZERS,
    "trackers": TRACKERS,
}
