"""What a record holds of the code: the hash of each file, and the digest of each Python file without its comments."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from codex_ml.core.config import Section
from codex_ml.core.errors import UserError
from codex_ml.core.pipeline import StageSpec
from codex_ml.core.record import RecordedHashes, deciding, parse_record, start_record
from codex_ml.core.syntax_tree import syntax_digest

FILES = {
    "src/codex_ml/core/io.py": b"# one\nx = 1\n",
    "src/codex_ml/core/page.jinja": b"{# one #}",
    "src/codex_ml/core/broken.py": b"x = (",
    "stages/train.py": b"'''Train.'''\n",
    "data/words.py": b"x = 1\n",
}
DEPS = ("src/codex_ml/core", "stages/train.py", "data/words.py")


@pytest.fixture
def record(project: Path) -> dict[str, Any]:
    for name, data in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)
    return start_record(StageSpec("train", "x", "", DEPS, (), (), frozenset()), Section())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pyproject.toml").write_bytes((Path(__file__).parents[2] / "pyproject.toml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_code_is_recorded_file_by_file(record: dict[str, Any]) -> None:
    core = record["deps"]["src/codex_ml/core"]
    texts = {name: FILES[f"src/codex_ml/core/{name}"] for name in core["files"]}
    expected = {name: hashlib.md5(text, usedforsecurity=False).hexdigest() for name, text in texts.items()}
    assert core["files"] == expected
    assert list(expected) == ["broken.py", "io.py", "page.jinja"]
    assert core["syntax"] == {"io.py": syntax_digest(b"x = 1")}
    assert record["deps"]["stages/train.py"]["syntax"] == {"train.py": syntax_digest(b"")}
    assert record["deps"]["data/words.py"].keys() == {"md5", "sha256", "size"}
    RecordedHashes.model_validate(core)
    assert parse_record(record, "it") == record


def test_comment_is_in_the_record_and_not_in_what_decides(record: dict[str, Any]) -> None:
    Path("src/codex_ml/core/io.py").write_bytes(b"# two\nx = (1)\n")
    spec = StageSpec("train", "x", "", DEPS, (), (), frozenset())
    commented = start_record(spec, Section())
    assert commented != record
    assert deciding(commented) == deciding(record)
    Path("src/codex_ml/core/page.jinja").write_bytes(b"{# two #}")  # no program: its text decides
    assert deciding(start_record(spec, Section())) != deciding(record)


def test_record_with_something_else_as_digest_is_refused(record: dict[str, Any]) -> None:
    record["deps"]["stages/train.py"]["syntax"] = {"train.py": 1}
    with pytest.raises(UserError, match=r"it: deps: stages/train\.py: expected `syntax` to map names to digests"):
        parse_record(record, "it")
