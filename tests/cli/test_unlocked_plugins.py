"""No code of a package runs before its lock records it: only `codex-ml plugins` imports it, in whatever command it is named."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from codex_ml.cli.main import whole_app
from codex_ml.core.errors import UserError
from codex_ml.core.plugin_lock import lock_path
from codex_ml.core.plugins import KINDS
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers import plan_source
from codex_ml.modeling.prompt_template import template_named
from codex_ml.policy.filters import load_filter
from codex_ml.split.augment import augment_train
from codex_ml.split.config import Split
from codex_ml.split.redaction import ScreenSettings
from codex_ml.split.split_writer import Counts
from codex_ml.tokenizer.plugin_tokenizer import train_plugin
from codex_ml.train.config import Model
from codex_ml.train.model.plugin_architecture import plugin_sizes

LOCKED = [kind for kind in KINDS if KINDS[kind].locked]
PARAMS = {
    "ingest": {"sources": [{"kind": "spy", "path": "data/raw"}]},
    "split": {"augment": ["spy"]},
    "tokenizer": {"kind": "spy"},
    "pack": {"template": "spy"},
    "model": {"preset": "spy", "architecture": "spy"},
}
# What a command needs to get past its own arguments.
ARGUMENTS = {
    "audit": ["--model", "x"], "compare": ["reports", "reports"], "evaluate": ["--model", "x", "--data", "x"],
    "generate": ["hello"], "init": ["sft", "--out", "other.yaml"], "ledger forget": ["x", "--reason", "y"],
    "lineage": ["models/model"], "pack show": ["--row", "0"], "sweep": ["--set", "train.lr=choice(1,2)", "--trials", "1"],
    "tokenizer compare": ["models/tokenizer", "models/tokenizer"],
} | {f"export {form}": ["--out", "x"] for form in ("gguf", "merged", "adapter", "tokenizer")} | {
    f"hook {check}": ["params.yaml"]
    for check in ("secrets", "large-files", "env-files", "yaml", "line-endings", "conflicts")
}  # fmt: skip


@pytest.fixture
def seen(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the code of a package writes when it is imported. params.yaml and the policy name the package."""
    site, seen = workspace.parent / "site", workspace.parent / "seen"
    info = site / "spy-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: spy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("".join(f"[codex_ml.{kind}]\nspy = spy_code:{kind}\n" for kind in LOCKED))
    code = f"open({str(seen)!r}, 'a').close()\n" + "".join(f"{kind} = dict\n" for kind in LOCKED)
    (site / "spy_code.py").write_text(code + "templates = {'prompt': '{instruction}'}\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(workspace / "src")]))
    importlib.invalidate_caches()
    params = yaml.safe_load(Path("params.yaml").read_text())
    for section, values in PARAMS.items():
        params[section] = {**params[section], **values}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    policy = Path("data/policy.yaml")
    policy.write_text(policy.read_text().replace("detectors: []", "detectors: [spy]"))
    yield seen
    sys.modules.pop("spy_code", None)


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(whole_app(), list(words))
    return done.exit_code, done.stderr


def commands() -> list[str]:
    group = typer.main.get_command(whole_app())
    return [
        " ".join([name, *below])
        for name, command in group.commands.items()
        for below in ([[inner] for inner in command.commands] if hasattr(command, "commands") else [[]])
    ]


def test_only_plugins_list_and_plugins_lock_import_what_no_lock_records(seen):
    for name in commands():
        if name not in ("plugins list", "plugins lock"):
            run(*name.split(), *ARGUMENTS.get(name, []))
            assert not seen.exists(), name
    code, message = run("check")
    assert (code, message.partition(";")[0]) == (
        2, "error: data/presets.lock does not have the preset 'spy', which params.yaml names",
    )  # fmt: skip

    assert run("plugins", "list", "--kind", "readers") == (0, "")
    assert seen.exists() and "spy_code" not in sys.modules, "a process of its own imports it"
    seen.unlink()
    assert run("plugins", "lock") == (0, "")
    assert seen.exists()
    for kind in LOCKED:
        assert [entry["name"] for entry in yaml.safe_load(lock_path(kind).read_text())[kind]] == ["spy"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["ingest", "split", "tokenizer", "pack", "train", "evaluate", "safety_audit"])
def test_no_stage_imports_it(seen, stage):
    done = subprocess.run([sys.executable, f"stages/{stage}.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, seen.exists()) == (2, False), done.stderr
    assert "data/presets.lock does not have the preset 'spy'" in done.stderr


USES = {
    "architectures": lambda: plugin_sizes(Model(architecture="spy")),
    "augmenters": lambda: augment_train(
        Path(), Counts(documents=0, bytes=0), ScreenSettings(Split(augment=["spy"]), None, b"", "")
    ),
    "detectors": lambda: load_filter(Path("data/policy.yaml"), lock_path("detectors"), Path("data/redaction_key")),
    "presets": lambda: Model(preset="spy"),
    "readers": lambda: list(plan_source(Source(kind="spy", path="data/raw"), max_bytes=100)),
    "templates": lambda: template_named("spy"),
    "tokenizers": lambda: train_plugin("spy", lambda: iter(()), 300),
}


@pytest.mark.parametrize("kind", LOCKED)
def test_what_uses_a_kind_asks_its_lock_first(seen, kind):
    with pytest.raises(
        UserError, match=rf"^data/{kind}.lock does not have the {KINDS[kind].one} 'spy', which .* names; "
    ):
        USES[kind]()
    assert not seen.exists() and "spy_code" not in sys.modules


def test_every_import_of_a_kind_with_a_lock_goes_through_the_lock(repository):
    """`plugins.load` compares nothing. Detectors use it, whose lock is beside the policy that names them."""
    kinds = set()
    for file in (repository / "src").rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Name) and call.func.id == "load" and isinstance(call.args[0], ast.Constant):
                kinds.add(call.args[0].value)
    assert kinds & set(LOCKED) == {"detectors"}
