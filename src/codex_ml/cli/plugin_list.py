"""The plug-ins that installed packages offer, and which of them can be used. Used by: `codex-ml plugins list`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Literal

from pydantic import BaseModel, ConfigDict

from codex_ml.cli.plugin_names import built_in_names
from codex_ml.core.plugin_trial import import_error
from codex_ml.core.plugins import KINDS, Plugin, installed

PREFIX = "codex_ml."
State = Literal["loaded", "failed", "collision", "shadowed"]


class ListedPlugin(BaseModel):
    """A plug-in in the output of `codex-ml plugins list --json`.

    Attributes:
        object: module and object, as the entry point of the package has them.
        state: failed: it cannot be imported, is not what its kind needs, or its kind does not exist; collision: another
            package offers the same name, so neither is used; shadowed: something built in has it, and is used instead.
        why: the reason for any state but "loaded", on one line; else "".
    """

    model_config = ConfigDict(extra="forbid")

    kind: str
    name: str
    distribution: str
    version: str
    object: str
    state: State
    why: str


class PluginList(BaseModel):
    """The output of `codex-ml plugins list --json`."""

    model_config = ConfigDict(extra="forbid")

    plugins: list[ListedPlugin]


def listed(kind: str) -> PluginList:
    """The installed plug-ins of a kind, or all for "". Each that can be named is imported in a process of its own.

    An entry point `codex_ml.<kind>` with a kind that there is not, such as a misspelt one, is listed as failed.
    """
    kinds = [kind] if kind else sorted({*KINDS, *_kinds_offered()})
    found = {kind: installed(kind) for kind in kinds}
    return PluginList(plugins=[_listed(plugin, offers) for offers in found.values() for plugin in offers])


def _kinds_offered() -> list[str]:
    return [group.removeprefix(PREFIX) for group in entry_points().groups if group.startswith(PREFIX)]


def _listed(plugin: Plugin, offers: list[Plugin]) -> ListedPlugin:
    others = [other.origin for other in offers if other.name == plugin.name and other != plugin]
    state: State = "loaded"
    if plugin.kind not in KINDS:
        state, why = "failed", f"there is no kind {plugin.kind!r} of plug-ins; there are: {', '.join(KINDS)}"
    elif plugin.name in built_in_names(plugin.kind):
        state, why = "shadowed", f"the built-in {KINDS[plugin.kind].one} of this name is used instead"
    elif others:
        state, why = "collision", f"{' and '.join(others)} offers the same name; uninstall all but one"
    elif why := import_error(plugin):
        state = "failed"
    values = {"kind": plugin.kind, "name": plugin.name, "distribution": plugin.distribution}
    return ListedPlugin(**values, version=plugin.version, object=plugin.value, state=state, why=why)
