"""Which plug-ins params.yaml and data/policy.yaml name. Used by: `codex-ml check`, `codex-ml plugins`."""

from __future__ import annotations

from collections.abc import Iterable

from codex_ml.cli.param_rules import Params
from codex_ml.core.plugins import KINDS


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
