"""Plug-ins whose installed code is not the one in data/<kind>.lock. Used by: `codex-ml check`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from codex_ml.cli.param_rules import Params
from codex_ml.cli.plugin_names import named_plugins
from codex_ml.core.errors import UserError
from codex_ml.core.hashing import hash_file
from codex_ml.core.pipeline import Locked
from codex_ml.core.plugin_lock import lock_path, locked_names, refuse_other_code

POLICY = Path("data/policy.yaml")


def other_plugins(params: Params, lock: dict[str, Locked]) -> Iterator[str]:
    """One message per kind of plug-in whose code differs from its lock."""
    for kind, names in named_plugins(params, ()).items():
        try:
            if kind != "detectors":
                refuse_other_code(kind, names)
            elif POLICY.is_file() and lock_path(kind).is_file():  # other checks report a missing file
                refuse_other_code(kind, _detectors(lock))
        except UserError as error:
            yield str(error)


def _detectors(lock: dict[str, Locked]) -> list[str]:
    """The detectors that data/policy.yaml names."""
    from codex_ml.safety_audit.audit_numbers import load_audit_policy

    # `split` has compared the lock with the policy that it read; reading one takes half a second
    if "split" in lock and lock["split"].deps.get(str(POLICY)) == hash_file(POLICY).md5:
        return locked_names("detectors")
    return list(load_audit_policy(POLICY).detectors)
