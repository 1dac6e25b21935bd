"""Plug-ins: objects that other installed packages offer under the entry points `codex_ml.<kind>`.

    [project.entry-points."codex_ml.tokenizers"]
    characters = "my_package.tokenizers:train_characters"

A plug-in is imported only where params.yaml or data/policy.yaml names it, or where a user asks for it; looking for a
name reads only the metadata of packages. A name that two packages offer is refused when it is used.

Used by: policy.detectors, evaluate.metrics, the config of the stages, `codex-ml plugins`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from codex_ml.core.errors import UserError, one_line
from codex_ml.core.plugin_files import read_sources_only

# What an object can be, and how messages call that.
CALLABLE = {"callable": "a callable"}
MAPPING = {"mapping": "a mapping"}
METRIC = {"metric": "an object or a class with the methods measure and aggregate"}


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in.

    Attributes:
        one: what messages call one of them.
        named_in: the keys that name one.
        locked: whether its code is a dependency of stages, recorded in data/<kind>.lock. The code of a metric is not:
            `evaluate` records the package and version of each, and `codex-ml check` compares them. A hook runs in a
            process of its own. A tracker runs in that of the training, which restores its random state after each call.
        shapes: what an object of this kind can be.
    """

    one: str
    named_in: str
    locked: bool = True
    shapes: Mapping[str, str] = field(default_factory=lambda: CALLABLE)


KINDS = {
    "architectures": Kind("architecture", "params.yaml: model.architecture"),
    "augmenters": Kind("augmenter", "params.yaml: split.augment"),
    "detectors": Kind("detector", "data/policy.yaml: detectors"),
    "hooks": Kind("hook", "params.yaml: runtime.on_event", locked=False),
    "metrics": Kind("metric", "params.yaml: evaluate.metrics", locked=False, shapes=METRIC),
    "presets": Kind("preset", "params.yaml: model.preset", shapes=MAPPING | CALLABLE),
    "readers": Kind("reader", "params.yaml: ingest.sources.kind"),
    "templates": Kind("template", "params.yaml: pack.template", shapes=MAPPING),
    "tokenizers": Kind("tokenizer", "params.yaml: tokenizer.kind"),
    "trackers": Kind("tracker", "params.yaml: runtime.trackers", locked=False),
}


class UnusablePlugin(UserError):
    """A plug-in that was named cannot be used; `why` is the reason without its name."""

    def __init__(self, kind: str, name: str, why: str) -> None:
        self.why = why
        super().__init__(f"{KINDS[kind].named_in}: {KINDS[kind].one} {name!r} {why}")


@dataclass(frozen=True)
class Plugin:
    """A plug-in that is installed, not imported.

    Attributes:
        distribution, version: of the package that offers it; "" for one that a test registers.
        value: module and object, as the entry point has them.
        point: the entry point; None for one that a test registers, whose object is `found`.
    """

    kind: str
    name: str
    distribution: str
    version: str
    value: str
    point: EntryPoint | None = field(default=None, repr=False)
    found: Any = field(default=None, repr=False)

    @property
    def origin(self) -> str:
        """Package and version, for messages."""
        return f"{self.distribution} {self.version}".strip() or "no package"

    def load(self) -> Any:
        """Import it and return its object. What it prints while it is imported goes to stderr.

        Its modules are compiled from their sources, which a lock records; byte code beside them is not used.

        Raises:
            UnusablePlugin: with the error on one line, whatever its code raises.
        """
        if self.point is None:
            return self.found
        try:
            if self.point.dist is not None:
                read_sources_only(self.point.dist, self.value)
            with redirect_stdout(sys.stderr):
                return self.point.load()
        except (Exception, SystemExit) as error:
            why = f"cannot be imported: {type(error).__name__}: {one_line(error)} ({self.value})"
            raise UnusablePlugin(self.kind, self.name, why) from None


_registered: list[Plugin] = []


def installed(kind: str) -> list[Plugin]:
    """All plug-ins of a kind in the order of their names, also several of one name. None is imported."""
    found = [_plugin(kind, point) for point in entry_points(group=f"codex_ml.{kind}")]
    found += [plugin for plugin in _registered if plugin.kind == kind]
    return sorted(found, key=lambda plugin: (plugin.name, plugin.value, plugin.distribution))


def _plugin(kind: str, point: EntryPoint) -> Plugin:
    package = point.dist
    try:
        distribution, version = (package.name or "", package.version or "") if package else ("", "")
    except Exception:  # a package whose metadata cannot be read
        distribution, version = "", ""
    return Plugin(kind, point.name, distribution, version, point.value, point)


def only(kind: str, name: str, offers: list[Plugin]) -> Plugin:
    """The one plug-in among those that offer a name.

    Raises:
        UnusablePlugin: when there is none, or several.
    """
    if len(offers) == 1:
        return offers[0]
    if not offers:
        known = ", ".join(dict.fromkeys(plugin.name for plugin in installed(kind))) or "none"
        raise UnusablePlugin(kind, name, f"is not installed; installed are: {known}")
    packages = " and ".join(plugin.origin for plugin in offers)
    raise UnusablePlugin(kind, name, f"is offered by {len(offers)} packages, {packages}; uninstall all but one")


def find(kind: str, name: str) -> Plugin:
    """The plug-in with a name, without importing it.

    Raises:
        UnusablePlugin: when it is not installed, or two packages offer it.
    """
    return only(kind, name, [plugin for plugin in installed(kind) if plugin.name == name])


def load(kind: str, name: str) -> Any:
    """Import the plug-in with a name and return its object, whatever its code is.

    For kinds without a lock; `codex_ml.core.plugin_lock.load_locked` loads the others.

    Raises:
        UnusablePlugin: when it is not installed, is offered twice, or cannot be imported.

    >>> load("trackers", "lines")  # doctest: +SKIP
    """
    return find(kind, name).load()


@contextmanager
def registered(kind: str, name: str, found: Any) -> Iterator[None]:
    """Offer an object as a plug-in for the time of a test.

    >>> with registered("metrics", "length", Length()):  # doctest: +SKIP
    ...     load("metrics", "length")
    """
    if kind not in KINDS:
        raise ValueError(f"there is no kind {kind!r} of plug-ins; there are: {', '.join(KINDS)}")
    plugin = Plugin(kind, name, "", "", "registered by a test", found=found)
    _registered.append(plugin)
    try:
        yield
    finally:
        _registered.remove(plugin)


@dataclass(frozen=True)
class BuiltInOr:
    """The type of a key of params.yaml that names something built in, or a plug-in of an installed package.

    kind: Annotated[str, BuiltInOr("tokenizers", ("byte_bpe", "local"))]
    """

    kind: str
    built_in: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"enum": list(self.built_in), "type": "string"}, {"type": "string"}]}

    def _check(self, name: str) -> str:
        if name in self.built_in:
            return name
        others = sorted({plugin.name for plugin in installed(self.kind)})
        if name in others:
            find(self.kind, name)  # refuses a name that two packages offer
            return name
        *first, last = map(repr, (*self.built_in, *others))
        allowed = f"{', '.join(first)} or {last}" if first else last
        raise ValueError(f"input should be {allowed}; found {name[:80]!r}")
