"""The folder of a tokenizer says how the tokenizer was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_ml.core.errors import UserError
from codex_ml.tokens.layout import read_kind, write_kind


def test_the_kind_of_a_tokenizer_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_kind(tmp_path, "byte_bpe")
    assert (tmp_path / "kind.json").read_text() == '{\n  "kind": "byte_bpe"\n}\n'
    assert read_kind(tmp_path) == "byte_bpe"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"kind": 1}', '{"kind": "local", "more": 1}', None])
def test_a_folder_that_does_not_say_it_is_refused_with_the_stage_that_makes_it(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "kind.json").write_text(content)
    with pytest.raises(UserError, match=r"kind\.json.*; `dvc repro tokenizer` makes it"):
        read_kind(tmp_path)
