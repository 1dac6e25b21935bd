"""`codex-ml plugins`: what other installed packages offer, and the locks of those that are used."""

from __future__ import annotations

from typing import Annotated

import typer

from codex_ml.cli.completion import plugin_kinds
from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say
from codex_ml.core.errors import UserError, one_line_errors
from codex_ml.core.repository_root import go_to_top

app = typer.Typer(no_args_is_help=True, help="Plug-ins: what other installed packages offer, and their locks.")


@app.command("list")
def list_plugins(
    kind: Annotated[
        str, typer.Option("--kind", help="Only plug-ins of this kind, such as metrics.", autocompletion=plugin_kinds)
    ] = "",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List what installed packages offer: kind, name, package, version, object, and whether it can be imported.

    Each plug-in is imported in a process of its own. One that fails is listed with its error; two with one name are
    listed as a collision and refused where they are used. docs/extend.md describes the kinds.

    $ codex-ml plugins list --kind metrics
    """
    from codex_ml.cli.plugin_list import listed
    from codex_ml.core.plugins import KINDS

    with one_line_errors(debug=debug):
        if kind and kind not in KINDS:
            raise UserError(f"--kind: there is no kind {kind!r} of plug-ins; there are: {', '.join(KINDS)}")
        found = listed(kind)
        if json:
            print_json(found.model_dump(mode="json"))
            return
        for plugin in found.plugins:
            origin = f"{plugin.distribution} {plugin.version}"
            state = f"{plugin.state}: {plugin.why}" if plugin.why else plugin.state
            line = f"{plugin.kind:<13} {plugin.name:<20} {origin:<24} {plugin.object}  {state}"
            say(" ".join(line.split("\n")))
        if not found.plugins:
            say(f"plugins: no package offers {kind or 'a plug-in'}; docs/extend.md describes how to make one")


@app.command("lock")
def lock_plugins(debug: Debug = False) -> None:
    """Write data/<kind>.lock: version and hash of the code of each plug-in that params.yaml or data/policy.yaml names.

    The stages that use a plug-in depend on its lock, and refuse to run if the installed code differs from it. Metrics,
    trackers and hooks have no lock: `evaluate` records package and version of each metric, and docs/extend.md says what
    keeps the others from changing a result.

    $ codex-ml plugins lock && git add data/*.lock
    """
    from codex_ml.cli.param_rules import load_params
    from codex_ml.cli.plugin_names import named_plugins
    from codex_ml.core.plugin_lock import any_code, lock_of, lock_path, write_lock
    from codex_ml.core.plugins import KINDS
    from codex_ml.policy.rules import load_policy

    with one_line_errors(debug=debug):
        go_to_top()
        with any_code():  # a preset decides which architecture is named
            params = load_params()
        named = named_plugins(params, load_policy().detectors)
        for kind, names in named.items():  # before the first is written
            lock_of(kind, names)
        for kind, names in named.items():
            for entry in (entries := write_lock(kind, names)):
                origin = f"{entry['distribution']} {entry['version']}, {entry['object']}"
                say(f"plugins: {KINDS[kind].one} {entry['name']}: {origin}")
            say(f"plugins: {lock_path(kind)} holds {len(entries)} {kind}")
        say("plugins: commit the locks, then `dvc repro`")
