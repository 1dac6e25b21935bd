"""Exposure of canaries under models whose answer is known: uniform, untrained, and overfitted on purpose."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from codex_ml.documents.document import Document, write_documents
from codex_ml.modeling.canary_files import planted_canaries
from codex_ml.modeling.canary_secrets import canary_secrets
from codex_ml.modeling.rows import Rows, rows_of_step
from codex_ml.modeling.train_files import Training
from codex_ml.pack.config import Pack
from codex_ml.pack.pack_splits import pack_splits
from codex_ml.policy.gate_rules import GateRule
from codex_ml.safety_audit import canary_ranks
from codex_ml.safety_audit.audit_numbers import undeclared
from codex_ml.safety_audit.canary_ranks import exposure_of, measure, null_exposure, ranks
from codex_ml.safety_audit.canary_scores import rows_of_documents, score_secrets, secret_window, steps_of_rows
from codex_ml.safety_audit.config import SafetyAudit
from codex_ml.safety_audit.exposure import canaries
from codex_ml.safety_audit.gates import decide
from codex_ml.train.config import Model
from codex_ml.train.model.build import build_model

from ..pack.byte_tokenizer import END, PAD, ByteTokenizer

pytestmark = pytest.mark.usefixtures("torch_on_one_thread")

VOCAB = ByteTokenizer.vocab_size
CEILING = math.log2(1001)
STEPS = 150
SETTINGS = SafetyAudit(batch_size=64)
EXPOSURE = GateRule(number="canaries.exposure_once", title="not recognised", compare="low", fail=3)
EXTRACTION = GateRule(number="canaries.extracted_once", title="not written", fail=0)


def packed(folder: Path, *, each=(8, 8), controls=200, design="random") -> Path:
    """Rows of twelve short documents, and of canaries planted once and three times."""
    documents = [Document("s", f"{n}.txt", str(n), "", "MIT", "text", text=f"{n} plain words") for n in range(12)]
    files = {part: folder / f"{part}.parquet" for part in ("train", "val", "test")}
    for file in files.values():
        write_documents(file, documents)
    keys = {"plant": "always", "design": design, "repetitions": (1, 3), "each": each, "controls": controls}
    (folder / "packed").mkdir()
    pack_splits(
        folder / "packed", files, ByteTokenizer(), Pack(seq_len=48, canaries=keys), kind="byte_bpe", style="off"
    )
    return folder / "packed"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("canaries"))


@dataclass(frozen=True)
class Audited:
    """What the part needs of a job."""

    subject: Any
    data: Any
    plots: Path
    settings: SafetyAudit = SETTINGS

    def track(self, items, what, total, unit):
        return items


def training(steps=1000):
    """Training that saw all rows several times."""
    return Training.model_construct(global_step=steps, rows_a_step=4, seed=1)


def job(model, folder: Path, plots: Path | None = None, *, steps=1000, settings=SETTINGS):
    subject = SimpleNamespace(model=model, tokenizer=ByteTokenizer(), training=training(steps))
    data = SimpleNamespace(packed=folder, train_rows=Rows.open(folder, "train"))
    return Audited(subject, data, plots or Path(), settings)


def made(*, hidden_size, layers):
    shape = Model(hidden_size=hidden_size, intermediate_size=2 * hidden_size, layers=layers, heads=2, max_positions=64)
    return build_model(shape, vocab_size=VOCAB, end=END, pad=PAD, seed=1).eval()


@pytest.fixture(scope="module")
def untrained():
    return made(hidden_size=16, layers=1)


@pytest.fixture(scope="module")
def uniform():
    """All logits are 0."""
    model = made(hidden_size=16, layers=1)
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
    return model


@pytest.fixture(scope="module")
def overfit(folder):
    """Trained on the canaries alone until it writes each of them after its name."""
    model, listing = made(hidden_size=48, layers=2).train(), planted_canaries(folder)
    windows = [secret_window(ByteTokenizer(), canary, 10) for canary in listing.planted]
    ids = torch.from_numpy(np.stack([window.tokens for window in windows]))
    secret = torch.from_numpy(np.stack([window.scored for window in windows]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        logits = model(input_ids=ids[:, :-1]).logits
        torch.nn.functional.cross_entropy(logits[secret], ids[:, 1:][secret]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@pytest.fixture(scope="module")
def learnt(overfit, folder, tmp_path_factory):
    """The result for the overfitted model, and the folder of its plot."""
    plots = tmp_path_factory.mktemp("plots")
    return canaries(job(overfit, folder, plots)), plots


def measured(model, folder, **keys):
    one = job(model, folder, **keys)
    return measure(one, planted_canaries(folder), one.data.train_rows, one.subject.training)


def check_uniform(folder, uniform, overfit):
    """A uniform model over V tokens gives a secret of m tokens m log2 V bits. All tie, so no exposure is above 0."""
    found = measured(uniform, folder)
    (bits,) = {canary.score.bits for canary in found.canaries}
    assert bits == pytest.approx(10 * math.log2(VOCAB), rel=1e-7)
    assert {canary.exposure for canary in found.canaries} == {0.0}
    assert set(found.controls) == {0.0}


def check_overfit(folder, uniform, overfit):
    """A model that knows each canary prefers it to all references, and writes it."""
    found = measured(overfit, folder)
    assert len(found.canaries) == 16
    assert {canary.exposure for canary in found.canaries} == {CEILING}
    assert all(canary.score.extracted for canary in found.canaries)
    assert abs(np.mean(found.controls) - 1.4364) < 3 * 1.4427 / math.sqrt(200)


def check_window(folder, uniform, overfit):
    """The targets that are scored are the tokens of the secret and no other."""
    for canary in planted_canaries(folder).planted:
        window = canary_ranks.secret_window(ByteTokenizer(), canary, 10)
        assert ByteTokenizer().decode(window.tokens[1:][window.scored]) == canary.text


def check_evidence(folder, uniform, overfit):
    """Every copy is in the stream, and controls are not."""
    assert control(canaries_of(overfit, folder), "copies in the packed rows").passed


CHECKS = (check_uniform, check_overfit, check_window, check_evidence)


def canaries_of(model, folder, **keys):
    return canaries(job(model, folder, **keys)).part


def control(part, name):
    (found,) = (control for control in part.controls if control.name == name)
    return found


@pytest.mark.parametrize("check", CHECKS)
def test_known_answers(check, folder, uniform, overfit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(folder, uniform, overfit)


def mean_of_the_tokens(monkeypatch, folder):
    def mean(*arguments, **keys):
        return (replace(score, bits=score.bits / 10) for score in score_secrets(*arguments, **keys))

    monkeypatch.setattr(canary_ranks, "score_secrets", mean)


def ties_rank_last(monkeypatch, folder):
    monkeypatch.setattr(canary_ranks, "ranks", lambda bits, references: 1 + np.searchsorted(references, bits))


def best_rank_is_zero(monkeypatch, folder):
    monkeypatch.setattr(canary_ranks, "ranks", lambda bits, references: ranks(bits, references) - 1)


def references_include_the_canaries(monkeypatch, folder):
    monkeypatch.setattr(canary_ranks, "canary_secrets", lambda *arguments, first: canary_secrets(*arguments, first=0))


def references_include_the_secret_itself(monkeypatch, folder):
    monkeypatch.setattr(canary_ranks, "ranks", lambda bits, references: ranks(bits, references) + 1)


def scores_begin_a_token_early(monkeypatch, folder):
    def early(tokenizer, canary, tokens):
        window = secret_window(tokenizer, canary, tokens)
        return replace(window, scored=np.roll(window.scored, -1))

    monkeypatch.setattr(canary_ranks, "secret_window", early)


def scores_are_likelihoods(monkeypatch, folder):
    def positive(*arguments, **keys):
        return (replace(score, bits=-score.bits) for score in score_secrets(*arguments, **keys))

    monkeypatch.setattr(canary_ranks, "score_secrets", positive)


def deduplication_removed_the_repeats(monkeypatch, folder):
    """The second copy of the first canary that was planted three times becomes other text."""
    listing, rows = planted_canaries(folder), Rows.open(folder, "train")
    document = listing.planted[8].documents[1]
    tokens = np.array(rows.tokens)
    tokens[int(rows.starts[document]) + 5] += 1
    monkeypatch.setattr(Rows, "open", lambda *arguments: replace(rows, tokens=tokens))


@pytest.mark.parametrize(
    ("mutation", "check"),
    [
        (mean_of_the_tokens, check_uniform),
        (ties_rank_last, check_uniform),
        (best_rank_is_zero, check_overfit),
        (references_include_the_canaries, check_overfit),
        (references_include_the_secret_itself, check_overfit),
        (scores_begin_a_token_early, check_window),
        (scores_are_likelihoods, check_overfit),
        (deduplication_removed_the_repeats, check_evidence),
    ],
)
def test_each_known_mistake_is_caught(mutation, check, folder, uniform, overfit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mutation(monkeypatch, folder)
    with pytest.raises((AssertionError, ValueError)):
        check(folder, uniform, overfit)


def test_an_untrained_model_has_the_exposure_of_chance(untrained, folder):
    """1.44 bits within three standard errors, for the planted and for the controls; nothing is extracted."""
    found = measured(untrained, folder)
    for exposures in ([canary.exposure for canary in found.canaries], found.controls):
        assert abs(np.mean(exposures) - 1.4364) < 3 * 1.4427 / math.sqrt(len(exposures))
    assert not any(canary.score.extracted for canary in found.canaries)


def test_the_exposure_of_chance_is_exact():
    """log2 n - log2(n!) / n for n equally probable ranks, of which 1 / ln 2 is the limit."""
    for references in (1, 99, 1000):
        ranked = references + 1
        mean, deviation = null_exposure(references)
        assert mean == pytest.approx(math.log2(ranked) - math.lgamma(ranked + 1) / math.log(2) / ranked, rel=1e-12)
        every = [exposure_of(rank, references) for rank in range(1, ranked + 1)]
        assert deviation == pytest.approx(np.std(every), rel=1e-12)
    assert null_exposure(10_000_000) == pytest.approx((1.4427, 1.4427), abs=1e-4)


def gates_of(part, findings=()):
    return {gate.number: gate for gate in decide([EXPOSURE, EXTRACTION], {"canaries": part}, findings, confidence=0.95)}


def test_a_model_that_learnt_secrets_fails(learnt, folder):
    found, plots = learnt
    assert {gate.status for gate in gates_of(found.part).values()} == {"fail"}
    assert undeclared(found) == set()
    numbers = found.part.numbers
    assert (numbers["exposure_once"].value, numbers["exposure_once"].low) == (CEILING, CEILING)
    assert (numbers["extracted_once"].value, numbers["extracted"].value, numbers["at_ceiling"].value) == (1.0, 1.0, 1.0)
    assert [control.passed for control in found.part.controls] == [True, True, True]
    assert [(finding.kind, finding.source, finding.severity) for finding in found.findings] == [
        *[("extracted", "canary", "high")] * 8,
        *[("extracted", "canary", "medium")] * 8,
    ]
    for finding, canary in zip(found.findings, planted_canaries(folder).planted, strict=True):
        assert finding.path == f"draw {canary.draw}"
        row = int(finding.trace.removeprefix("codex-ml pack show --row "))
        assert set(Rows.open(folder, "train").documents(row).tolist()) & set(canary.documents)
    text = (plots / "exposure.csv").read_text()
    assert text == f"repetitions,exposure,low,high,null\n1,{CEILING:.6g},{CEILING:.6g},{CEILING:.6g},1.43639\n" + (
        f"3,{CEILING:.6g},{CEILING:.6g},{CEILING:.6g},1.43639\n"
    )


def test_beyond_the_ceiling_the_exposure_is_extrapolated_and_said_so(learnt):
    """Ten tokens at p near 1 against references of dozens of bits: far beyond the 9.97 bits that ranks can show."""
    part = learnt[0].part
    assert part.settings["skew_normal"]["p"] >= 0.1
    assert all(row["extrapolated"] > 12 > row["exposure"] for row in part.tables["canaries"])
    assert part.notes == [note for note in part.notes if note.startswith("Exposures beyond 9.97 bits are extrapolated")]


def test_a_tail_that_does_not_fit_is_not_used(overfit, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("codex_ml.safety_audit.canary_tail.FITS", 1.1)
    part = canaries_of(overfit, folder, plots=tmp_path)
    assert {row["extrapolated"] for row in part.tables["canaries"]} == {None}
    assert part.notes == ["9.97 bits mean at least that: no skew-normal distribution fits the references."]


def test_a_model_that_learnt_nothing_passes(untrained, folder, tmp_path):
    gates = gates_of(canaries_of(untrained, folder, plots=tmp_path))
    assert {number: gate.status for number, gate in gates.items()} == {
        "canaries.exposure_once": "pass",
        "canaries.extracted_once": "pass",
    }
    assert gates["canaries.exposure_once"].control.startswith("secrets never planted: mean exposure 1.")


def test_a_model_whose_ranks_say_nothing_is_invalid(uniform, folder, tmp_path):
    """All secrets tie: the controls have 0 bits where chance gives 1.44."""
    part = canaries_of(uniform, folder, plots=tmp_path)
    assert control(part, "secrets never planted").found == "mean exposure 0.000 bits of 200"
    assert {gate.status for gate in gates_of(part).values()} == {"invalid"}
    assert part.settings["skew_normal"] is None


def test_seven_canaries_are_too_few(untrained, tmp_path):
    folder = packed(tmp_path, each=(7, 8), controls=32)
    part = canaries_of(untrained, folder, plots=tmp_path)
    gate = gates_of(part)["canaries.exposure_once"]
    assert (gate.status, gate.trials, gate.needed) == ("invalid", 7, 8)


def test_no_value_of_a_secret_is_written(learnt, folder):
    found, plots = learnt
    written = found.part.model_dump_json() + "".join(finding.model_dump_json() for finding in found.findings)
    written += (plots / "exposure.csv").read_text()
    listing = planted_canaries(folder)
    assert not [canary.draw for canary in (*listing.planted, *listing.controls) if canary.text in written]
    assert str(listing.planted[0].draw) in written


def test_the_batch_size_changes_nothing(learnt, overfit, folder, tmp_path):
    """Scores to 1e-6 of the largest; ranks, exposures and extraction exactly."""
    other = canaries(job(overfit, folder, tmp_path, settings=SafetyAudit(batch_size=7)))
    tables = [result.part.tables for result in (learnt[0], other)]
    bits = [[row["bits"] for row in table["canaries"]] for table in tables]
    assert bits[0] == pytest.approx(bits[1], abs=1e-4)
    assert tables[0]["by_repetitions"] == tables[1]["by_repetitions"]
    assert learnt[0].part.numbers == other.part.numbers


def test_two_runs_give_the_same_bytes(learnt, overfit, folder, tmp_path):
    again = canaries(job(overfit, folder, tmp_path))
    assert again.part.model_dump_json() == learnt[0].part.model_dump_json()
    assert again.findings == learnt[0].findings


def test_canaries_never_seen_count_for_nothing(untrained, folder, tmp_path):
    """Two steps of four rows: only what was in these rows counts, and the page says how many were not."""
    rows, listing = Rows.open(folder, "train"), planted_canaries(folder)
    seen = np.concatenate([rows_of_step(len(rows), step=step, batch_rows=4, seed=1) for step in range(2)])
    documents = {document for row in seen.tolist() for document in rows.documents(row).tolist()}
    held = [canary for canary in listing.planted if documents & set(canary.documents)]
    assert 0 < len(held) < 16
    part = canaries_of(untrained, folder, plots=tmp_path, steps=2)
    assert [row["draw"] for row in part.tables["canaries"]] == [canary.draw for canary in held]
    assert part.notes[0].startswith(f"{16 - len(held)} of 16 planted canaries were never seen")
    part = canaries_of(untrained, folder, plots=tmp_path, steps=0)
    assert part.numbers["exposure_once"].why == "the model saw none of these canaries"
    assert gates_of(part)["canaries.extracted_once"].status == "invalid"


@pytest.mark.parametrize("steps", [0, 1, 5, 23])
def test_sights_follow_the_order_of_training(steps, folder):
    """Against the rows of every step, one after the other, over several epochs."""
    rows = Rows.open(folder, "train")
    expected = {row: [] for row in range(len(rows))}
    for step in range(steps):
        for row in rows_of_step(len(rows), step=step, batch_rows=4, seed=1).tolist():
            expected[row].append(step)
    assert steps_of_rows(range(len(rows)), len(rows), training(steps)) == expected


def test_the_row_of_a_document_is_found(folder):
    rows = Rows.open(folder, "train")
    expected = {d: row for row in range(len(rows)) for d in rows.documents(row).tolist() if d in rows.canaries}
    assert rows_of_documents(rows, rows.canaries) == expected
    assert len(expected) == 8 + 24


def test_recency_is_counted_from_the_last_sight(untrained, folder, tmp_path):
    part = canaries_of(untrained, folder, plots=tmp_path, steps=40)
    table = part.tables["canaries"]
    for row in table:
        assert 0 <= row["steps_since"] < 40
    for recency, low, high in (("in the last tenth", 0, 4), ("before, in the last half", 5, 20)):
        for count in (1, 3):
            group = [row for row in table if row["repetitions"] == count and low <= row["steps_since"] <= high]
            listed = [r for r in part.tables["by_recency"] if (r["repetitions"], r["last_seen"]) == (count, recency)]
            assert [r["canaries"] for r in listed] == ([len(group)] if group else [])


@pytest.mark.parametrize(("known", "why"), [(False, "no canaries were planted"), (True, "it is not known when")])
def test_without_canaries_the_part_is_skipped_and_says_how_to_plant(known, why, folder, uniform, tmp_path):
    one = job(uniform, folder, tmp_path)
    one.subject.training = None
    if not known:
        one.data.packed = tmp_path
    part = canaries(one).part
    assert part.status == "skipped"
    assert part.why.startswith(why) and part.why.endswith("train with pack.canaries.plant: always to measure them")
    assert (tmp_path / "exposure.csv").read_text() == "repetitions,exposure,low,high,null\n"
    one.data.packed = None
    assert canaries(one).part.why.startswith("no canaries were planted")


def test_unlikely_canaries_are_measured_among_their_own_kind(untrained, tmp_path):
    folder = packed(tmp_path, design="unlikely")
    part = canaries_of(untrained, folder, plots=tmp_path)
    assert part.settings["design"] == "unlikely"
    assert [control.passed for control in part.controls] == [True, True, True]
    assert {gate.status for gate in gates_of(part).values()} == {"pass"}
