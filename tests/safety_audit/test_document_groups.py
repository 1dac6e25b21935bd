"""Documents of one group are one unit of evidence: intervals draw groups, trials count them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from codex_ml.documents.document import Document, write_documents
from codex_ml.modeling.rows import Rows
from codex_ml.modeling.train_files import Training
from codex_ml.pack.config import Pack
from codex_ml.pack.pack_splits import pack_splits
from codex_ml.safety_audit.audit_windows import AuditWindow, held_out_windows
from codex_ml.safety_audit.blind_baseline import blind_scores
from codex_ml.safety_audit.document_groups import read_groups, with_groups
from codex_ml.safety_audit.membership import membership
from codex_ml.safety_audit.membership_controls import unseen_area
from codex_ml.safety_audit.membership_scores import one_per_document
from codex_ml.safety_audit.window_places import Candidates
from codex_ml.safety_audit.window_scores import held_out_targets

from ..pack.byte_tokenizer import ByteTokenizer
from .byte_audit import audit_job, document, stream
from .test_membership import HELD_OUT, INSIDE, MEMBERS, OUTSIDE, Recites, gate

pytestmark = pytest.mark.usefixtures("torch_on_one_thread")


def audited(folder: Path, *, groups: bool) -> Any:
    """A model that knows three of the five repositories of train, and one of the eight held-out ones.

    That is a property of the repositories, not of the training.
    """
    inside = [f"train {number % 5}" if groups else "" for number in range(MEMBERS)]
    outside = [f"held-out {number % 8}" if groups else "" for number in range(HELD_OUT)]
    known = [text for number, text in enumerate(INSIDE) if number % 5 < 3]
    known += [text for number, text in enumerate(OUTSIDE) if number % 8 < 1]
    train = [document(number, text, group=inside[number]) for number, text in enumerate(INSIDE)]
    job = audit_job(
        folder, model=Recites(known), train=train, held_out=stream(*OUTSIDE), prefix_tokens=10, suffix_tokens=20
    )
    file = folder / "held_out.parquet"
    write_documents(file, [document(number, text, group=outside[number]) for number, text in enumerate(OUTSIDE)])
    return membership(replace(job, data=replace(job.data, held_out=file)))


def test_an_effect_of_repositories_is_no_proof_of_membership(tmp_path: Path) -> None:
    """By documents the interval excludes 0.6, as if it were proven; five repositories prove nothing."""
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    by_document, by_group = (audited(tmp_path / name, groups=name == "many") for name in ("one", "many"))
    one, many = (found.part.numbers["auc_loss"] for found in (by_document, by_group))
    assert one.value == many.value
    assert (one.trials, many.trials) == (HELD_OUT, 5)
    assert many.low < 0.6 < one.low
    assert many.trials < many.needed <= one.trials
    assert gate(by_group).status == "invalid"
    assert by_group.part.settings["independent units"] == {"train": 5, "held-out": 8}
    assert by_group.part.settings["documents"] == {"train": MEMBERS, "held-out": HELD_OUT}


def test_unread_documents_of_one_repository_are_no_control(tmp_path: Path) -> None:
    """The model knows 40 documents that it did not read, all of one repository: a bootstrap of one has no width."""
    train = [document(number, text, group=f"train {min(number, 70)}") for number, text in enumerate(INSIDE)]
    job = audit_job(
        tmp_path, model=Recites(INSIDE), train=train, held_out=stream(*OUTSIDE), prefix_tokens=10, suffix_tokens=20
    )
    assert job.data.train_rows is not None
    last_seen = np.where(np.arange(MEMBERS) < 70, 0, -1).astype(np.int32)
    unread = Candidates(job.data.train_rows, last_seen, read=False)
    windows = held_out_windows(job).windows
    outside = one_per_document(windows, held_out_targets(job), MEMBERS)
    job = replace(job, subject=replace(job.subject, training=Training.model_construct()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Candidates, "unseen", lambda rows, training: unread)
        assert unseen_area(job, "loss", outside) is None
        train = [document(number, text, group=f"train {number}") for number, text in enumerate(INSIDE)]
        write_documents(job.data.train, train)
        number = unseen_area(job, "loss", outside)
    assert number is not None
    assert (number.trials, number.value) == (40, 1)


def test_the_style_of_a_repository_does_not_tell_the_sets_apart() -> None:
    """Each repository has a word of its own. A classifier that has seen the others knows nothing about it."""
    random = np.random.Generator(np.random.PCG64(1))

    def side() -> tuple[list[str], list[str]]:
        words = ["".join(random.choice(list("abcdefghijklmnop"), 10)) for _ in range(12)]
        names = [words[number % 12] for number in range(96)]
        return [" ".join([name] * 3 + list(random.choice(list("abcdefgh"), 12))) for name in names], names

    (members, one), (held_out, two) = side(), side()
    assert blind_scores(members, held_out, seed=1).area() > 0.95
    assert abs(blind_scores(members, held_out, units=(one, two), seed=1).area() - 0.5) < 0.25
    with pytest.raises(ValueError, match="too few units for 5 folds"):
        blind_scores(members, held_out, units=(["a"] * 96, two), seed=1)


def test_groups_belong_to_the_documents_of_the_stream(tmp_path: Path) -> None:
    """Row 1 of each split is empty and was dropped, so document 1 of the stream is row 2."""
    texts = ["first text", "", "second text", "third text"]
    documents = [
        Document("web", f"{n}.txt", f"d{n}", "" if n == 3 else f"g{n}", "MIT", "text", prompt="", completion=text)
        for n, text in enumerate(texts)
    ]
    files = {name: tmp_path / f"{name}.parquet" for name in ("train", "val", "test")}
    for file in files.values():
        write_documents(file, documents)
    packed = tmp_path / "packed"
    packed.mkdir()
    pack_splits(packed, files, ByteTokenizer(), Pack(seq_len=16), kind="byte_bpe", style="off")
    rows = [Rows.open(packed, name) for name in ("train", "test")]
    data = SimpleNamespace(
        train=files["train"], train_rows=rows[0], held_out=files["test"], held_out_rows=rows[1], packed=packed
    )
    windows = [AuditWindow(None, number, 0, 1, None) for number in (2, 0, 1)]  # type: ignore[arg-type]
    for held_out in (False, True):
        found = with_groups(SimpleNamespace(data=data), windows, held_out=held_out)  # type: ignore[arg-type]
        assert [(window.document, window.group) for window in found] == [(2, ""), (0, "g0"), (1, "g2")]
        assert [window.unit for window in found] == ["document 2", "group g0", "group g2"]
    assert read_groups(files["test"], {1, 3}) == {1: "g1", 3: ""}
