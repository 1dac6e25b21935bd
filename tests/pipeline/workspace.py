"""A copy of this repository's code with a tiny corpus and tiny parameters, in a folder whose name is as awkward as allowed."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TRACKED = (
    "src",
    "stages",
    "dvc.yaml",
    "pyproject.toml",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvc/plots",
    ".dvcignore",
    ".gitignore",
    "params.schema.json",
)
FAULTS = Path(__file__).parent / "faults"  # a sitecustomize for every process of a workspace
PROJECT = REPOSITORY / "tests/project"  # data and models as an invented user has them
MAIN = "def main(stage: Stage[Params]) -> None:\n"  # of every stage script
AWKWARD = 'my proj ünï (1) & co\'s "best"'

PARAMS = """\
seed: 3
fetch: {sample: true, benchmarks: true}
ingest: {sources: [{kind: wheels, path: data/raw/sample}], max_document_bytes: 60000}
split:
  val: 0.15
  test: 0.15
  licences: [MIT, Apache-2.0]
  quality: {drop_generated: false}
  benchmarks: [{path: data/benchmarks/sample/tiny.jsonl.gz}]
tokenizer: {vocab_size: 400}
pack: {seq_len: 64, canaries: {each: [8, 2, 2]}}
model: {hidden_size: 16, intermediate_size: 32, layers: 1, heads: 2, max_positions: 64}
train:
  lr: 3e-3
  max_steps: 60
  warmup_steps: 4
  micro_batch_size: 4
  accumulation: 2
  eval_every: 15
  eval_rows: 8
  checkpoint_every: 3
  threads: 1
evaluate:
  bootstrap: 100
  completions: {documents: 8, max_tokens: 16}
  benchmarks: [data/benchmarks/sample/tiny.jsonl.gz]
  code: {max_tokens: 16}
safety_audit: {windows: 20, prefix_tokens: 12, suffix_tokens: 8, samples: 4, sample_tokens: 16}
report: {}
runtime: {device: cpu}
"""

# Real code that every Python brings: standard library modules, as the wheels of four invented packages.
CONTENTS = {
    ("alpha", "1.0", "MIT"): ("json", "email", "html", "logging"),
    ("alpha", "1.1", "MIT"): ("json", "email"),
    ("beta", "2.0", "MIT OR GPL-3.0-only"): ("http", "urllib", "xml/dom", "unittest", "importlib"),
    ("gamma", "0.1", "GPL-3.0-only"): ("wsgiref",),
}
# A benchmark in HumanEval's format, of three tasks.
TASKS = (
    {"task_id": "tiny/0", "entry_point": "largest_gap"}
    | {"prompt": 'def largest_gap(numbers):\n    """Return the largest difference of two neighbours, or 0."""\n'}
    | {
        "canonical_solution": "    pairs = zip(numbers, numbers[1:])\n    return max((abs(a - b) for a, b in pairs), default=0)\n"
    }
    | {"test": "def check(candidate):\n    assert candidate([1, 4, 2]) == 3\n    assert candidate([]) == 0\n"},
    {"task_id": "tiny/1", "entry_point": "vowels"}
    | {"prompt": 'def vowels(text):\n    """Count the letters a, e, i, o and u in a text of lower case."""\n'}
    | {"canonical_solution": "    return sum(letter in 'aeiou' for letter in text)\n"}
    | {"test": "def check(candidate):\n    assert candidate('queue') == 4\n"},
    {"task_id": "tiny/2", "entry_point": "runs"}
    | {"prompt": 'def runs(items):\n    """Return the lengths of the runs of equal neighbours, in order."""\n'}
    | {
        "canonical_solution": "    from itertools import groupby\n    return [len(list(group)) for _, group in groupby(items)]\n"
    }
    | {"test": "def check(candidate):\n    assert candidate('aabccc') == [2, 1, 3]\n"},
)


@dataclass
class Workspace:
    """Where a copy lies and how commands run in it."""

    root: Path
    wheels: Path
    extra: dict[str, str] = field(default_factory=dict)
    measured: bool = False  # whether coverage looks into the processes; it makes them twice as slow

    @property
    def environment(self) -> dict[str, str]:
        dropped = (
            ("DVC_", "GIT_", "CODEX_ML_", "PIP_") if self.measured else ("DVC_", "GIT_", "CODEX_ML_", "PIP_", "COV")
        )
        kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        return {
            **kept,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "DVC_SITE_CACHE_DIR": str(self.root / ".dvc/tmp/site"),
            "DVC_NO_ANALYTICS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_CONFIG_FILE": os.devnull,
            **self.extra,
            "PYTHONPATH": os.pathsep.join(filter(None, [self.extra.get("PYTHONPATH"), str(FAULTS)])),
        }

    def run(self, *command: str, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
        """Run a command in the workspace, with its output as text; `python` is the interpreter of the tests."""
        words = [sys.executable if word == "python" else word for word in command]
        done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
            words,
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            **options,
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def dvc(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run DVC."""
        return self.run("python", "-P", "-m", "dvc", *arguments, check=check)

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `codex-ml` from the workspace's own library."""
        code = "import sys; sys.path.insert(0, 'src'); from codex_ml.cli.main import main; main()"
        return self.run("python", "-P", "-c", code, *arguments, check=check)

    @property
    def lock(self) -> bytes:
        return (self.root / "dvc.lock").read_bytes()

    def copy(self, target: Path) -> Workspace:
        """An independent copy, with DVC's cache."""
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", self.root, target], check=True)  # a fifth of the time of shutil.copytree
        return Workspace(target, self.wheels, dict(self.extra))

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text in a file; the text must be there."""
        file = self.root / name
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {name}"
        file.write_text(text.replace(old, new), encoding="utf-8")


@dataclass(frozen=True)
class Finished:
    """A workspace in which `dvc repro` has run once, where that was, and what it printed."""

    workspace: Workspace
    made_in: str
    printed: str


def make_workspace(parent: Path) -> Workspace:
    """Build the copy, commit it with Git, make the wheels; nothing has run yet."""
    root, wheels = parent / AWKWARD, parent / "wheels"
    shutil.copytree(PROJECT, root)
    for name in TRACKED:
        source, target = REPOSITORY / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)  # with the byte code, so that no process compiles the library
        else:
            shutil.copyfile(source, target)
    (root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    (root / "README.md").write_text("a copy for tests\n", encoding="utf-8")
    pins = [make_wheel(wheels, *key, folders) for key, folders in CONTENTS.items()]
    pins.append(make_benchmark_wheel(wheels))
    (root / "data/sample.lock").write_text("# made by the tests\n" + "".join(pins), encoding="utf-8")
    workspace = Workspace(root, wheels)
    workspace.run("git", "init", "-q", "-b", "main")
    commit(workspace, "start")
    return workspace


def commit(workspace: Workspace, message: str) -> None:
    """Commit everything that Git does not ignore."""
    workspace.run("git", "add", "-A")
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    workspace.run("git", *identity, "commit", "-q", "-m", message)


def make_wheel(folder: Path, name: str, version: str, licence: str, contents: tuple[str, ...]) -> str:
    """Write a wheel of standard library modules; returns its line for sample.lock."""
    folder.mkdir(exist_ok=True)
    library = Path(sysconfig.get_path("stdlib"))
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(path: str, text: str) -> None:
            archive.writestr(zipfile.ZipInfo(path), text)

        for part in contents:
            for file in sorted((library / part).glob("*.py")):
                text = file.read_text(encoding="utf-8")
                if version == "1.1":  # a later release: most files as they were, some edited
                    text = text.replace("return None", "return  None  # changed")
                add(f"{name}/{part}/{file.name}", text)
        headers = {"Metadata-Version": "2.4", "Name": name, "Version": version, "License-Expression": licence}
        add(f"{info}/METADATA", "".join(f"{key}: {value}\n" for key, value in headers.items()))
        add(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        add(f"{info}/RECORD", "")
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def make_benchmark_wheel(folder: Path) -> str:
    """Write a wheel that holds TASKS, and a program that nothing may run; returns its line for sample.lock."""
    wheel, member = folder / "tiny_eval-1.0-py3-none-any.whl", "tiny_eval/data/tiny.jsonl.gz"
    lines = "".join(json.dumps(task) + "\n" for task in TASKS)
    data = gzip.compress(lines.encode(), mtime=0)
    metadata = "Metadata-Version: 2.1\nName: tiny-eval\nVersion: 1.0\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in (
            ("tiny_eval/__init__.py", b"raise SystemExit('a program of a benchmark ran')\n"),
            (member, data),
            ("tiny_eval-1.0.dist-info/METADATA", metadata.encode()),
            (
                "tiny_eval-1.0.dist-info/WHEEL",
                b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            ),
            ("tiny_eval-1.0.dist-info/RECORD", b""),
        ):
            archive.writestr(zipfile.ZipInfo(name), content)
    hashes = [hashlib.sha256(content).hexdigest() for content in (wheel.read_bytes(), data)]
    return f"benchmark tiny-eval==1.0 --hash=sha256:{hashes[0]} --file={member} --file-hash=sha256:{hashes[1]}\n"
