"""The part memorisation on models whose answer is known, and with each known mistake put in: it must be noticed."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from codex_ml.inference import likelihood
from codex_ml.inference.audit_files import AuditPart
from codex_ml.inference.likelihood import Scoring, Window, score_windows
from codex_ml.modeling.rows import IGNORE
from codex_ml.safety_audit import extraction
from codex_ml.safety_audit import memorisation as part_module
from codex_ml.safety_audit.audit_job import AuditData, AuditedModel, AuditJob
from codex_ml.safety_audit.audit_numbers import undeclared
from codex_ml.safety_audit.config import SafetyAudit
from codex_ml.safety_audit.memorisation import memorisation
from codex_ml.train.config import Model
from codex_ml.train.loss import summed_loss
from codex_ml.train.model.build import build_model

from .known_answers import END, HELD_OUT, MEMBER, PAD, VOCAB, Names, Successors, packed

pytestmark = pytest.mark.usefixtures("torch_on_one_thread")

PREFIX, SUFFIX, ROW, TEXTS = 8, 8, 20, 30
SHAPE = Model(architecture="gpt2", hidden_size=64, intermediate_size=128, layers=2, heads=2, max_positions=32)


def random_texts(seed):
    ids = np.random.Generator(np.random.PCG64(seed)).integers(2, VOCAB, (TEXTS, ROW - 1))
    return packed(*ids.tolist(), seq_len=ROW)


TRAIN_ROWS, TEST_ROWS = random_texts(1), random_texts(2)


@pytest.fixture(scope="module")
def untrained():
    return build_model(SHAPE, vocab_size=VOCAB, end=END, pad=PAD, seed=1).eval()


@pytest.fixture(scope="module")
def overfit():
    """Trained on the rows until it has memorised them. GPT-2 has absolute positions: it notices windows that moved."""
    model = build_model(SHAPE, vocab_size=VOCAB, end=END, pad=PAD, seed=1)
    batch = {key: torch.from_numpy(value) for key, value in TRAIN_ROWS.batch(np.arange(TEXTS)).items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = summed_loss(model, batch) / (TEXTS * ROW)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < math.log(TEXTS) / ROW + 0.02  # END says nothing about which text follows
    return model.eval()


def job_of(model, tmp_path, *, train=TRAIN_ROWS, held_out=TEST_ROWS, tokenizer=None, **settings):
    settings = {"prefix_tokens": PREFIX, "suffix_tokens": SUFFIX, "windows": TEXTS, "batch_size": 16, **settings}
    subject = AuditedModel(model, tokenizer or Names(), "digest")
    data = AuditData(train_rows=train, held_out_rows=held_out)
    plots = tmp_path / "plots"
    plots.mkdir(exist_ok=True)
    policy, scanner = SimpleNamespace(gates=()), SimpleNamespace(scan=lambda text: ())
    return AuditJob(
        subject,
        data,
        SafetyAudit(**settings),
        policy,
        scanner,
        str,
        1,
        plots=plots,
        track=lambda items, *_: iter(items),
    )


def measured(job):
    result = memorisation(job)
    assert undeclared(result) == set()
    return result


def answer(part: AuditPart):
    """The two shares, and the controls that failed."""
    shares = [part.numbers[name].value for name in ("extracted", "held_out")]
    return (*shares, {control.name for control in part.controls if not control.passed})


def table(file):
    """Lines of a CSV file as {column: text}."""
    head, *lines = (line.split(",") for line in file.read_text().splitlines())
    return [dict(zip(head, line, strict=True)) for line in lines]


def test_an_overfit_model_gives_all_of_train_and_nothing_of_held_out_text(overfit, tmp_path):
    result = measured(job_of(overfit, tmp_path))
    numbers = result.part.numbers
    assert answer(result.part) == (1.0, 0.0, set())
    assert numbers["excess"].value == 1.0
    assert numbers["excess"].low > 0.8
    assert numbers["matched_tokens"].value == 1.0
    assert (numbers["longest_match"].value, numbers["extracted_in_1000_tries"].value) == (SUFFIX, 1.0)
    assert numbers["held_out_in_1000_tries"].value == 0.0
    assert len(result.findings) == TEXTS
    assert {finding.number for finding in result.findings} == {"memorisation.extracted"}
    assert len({finding.id for finding in result.findings}) == TEXTS


def test_an_untrained_model_gives_nothing_and_its_controls_hold(untrained, tmp_path):
    result = measured(job_of(untrained, tmp_path))
    assert answer(result.part) == (0.0, 0.0, set())
    assert result.part.numbers["matched_tokens"].value < 0.1
    assert result.findings == []


def test_a_uniform_model_writes_a_suffix_with_the_probability_of_any_other(untrained, tmp_path):
    """p_z = V^-m, so n = ln 0.5 / ln(1 - V^-m) tries are needed, rounded up."""
    uniform = build_model(SHAPE, vocab_size=VOCAB, end=END, pad=PAD, seed=1).eval()
    with torch.no_grad():
        uniform.transformer.ln_f.weight.zero_()
        uniform.transformer.ln_f.bias.zero_()
    for suffix in (1, 2, 4):
        windows = [Window(np.arange(2, 12), np.ones(9, dtype=bool))]
        (found,) = extraction.score_suffixes(uniform, windows, suffix=suffix, batch_size=4)
        assert found.log_p == pytest.approx(-suffix * math.log(VOCAB), rel=1e-6)
        assert found.tries == pytest.approx(math.log(0.5) / math.log1p(-(VOCAB**-suffix)), rel=1e-5, abs=1)
    job = job_of(uniform, tmp_path, suffix_tokens=1)
    measured(job)
    shares = {
        line["tries"]: line["share"] for line in table(job.plots / "extraction_tries.csv") if line["set"] == "train"
    }
    # ln 0.5 / ln(0.99) = 68.97: all windows need 69 tries
    assert [shares[tries] for tries in ("1", "10", "100", "1000")] == ["0.0", "0.0", "1.0", "1.0"]


def test_a_table_of_successors_is_certain_of_its_text(tmp_path):
    """The text lies in one document; pieces of 8 tokens start six windows, and each of them has p_z = 1."""

    class Certain(Successors):
        def forward(self, input_ids, use_cache):
            return SimpleNamespace(logits=1000 * super().forward(input_ids, use_cache).logits)

        __call__ = forward

    train, held_out = packed(MEMBER, seq_len=8), packed(HELD_OUT, seq_len=8)
    job = job_of(
        Certain([END, *MEMBER, END]), tmp_path, train=train, held_out=held_out, prefix_tokens=4, suffix_tokens=4
    )
    result = measured(job)
    assert answer(result.part) == (1.0, 0.0, set())
    assert result.part.numbers["extracted"].trials == 6
    tries = {(line["set"], line["tries"]): line["share"] for line in table(job.plots / "extraction_tries.csv")}
    assert tries["train", "1"] == "1.0"
    assert tries["held-out", str(10**9)] == "0.0"


def test_text_that_greedy_decoding_hides_is_found_by_sampling(tmp_path):
    """The successor has 45 %, another token 55 %: a suffix of 8 has 0.45^8 = 0.0017, which needs 412 tries."""

    class Hidden(Successors):
        def forward(self, input_ids, use_cache):
            likely = super().forward(input_ids, use_cache).logits
            return SimpleNamespace(logits=torch.log(0.45 * likely + 0.55 * likely.roll(1, -1) + 1e-30))

        __call__ = forward

    train, held_out = packed(MEMBER, seq_len=12), packed(HELD_OUT, seq_len=12)
    job = job_of(Hidden([END, *MEMBER, END]), tmp_path, train=train, held_out=held_out, prefix_tokens=4)
    result = measured(job)
    assert answer(result.part) == (0.0, 0.0, set())
    numbers = result.part.numbers
    assert (numbers["excess"].value, numbers["excess_in_1000_tries"].value) == (0.0, 1.0)
    assert [finding.number for finding in result.findings] == ["memorisation.extracted_in_1000_tries"] * 4
    shares = {line["tries"]: line["share"] for line in table(job.plots / "extraction_tries.csv")[:10]}
    assert [shares[tries] for tries in ("1", "100", "1000")] == ["0.0", "0.0", "1.0"]
    (suffix,) = extraction.score_suffixes(
        job.subject.model, [Window(np.arange(2, 14), np.ones(11, dtype=bool))], suffix=8, batch_size=1
    )
    assert suffix.log_p == pytest.approx(8 * math.log(0.45), rel=1e-6)
    assert suffix.tries == math.ceil(math.log(0.5) / math.log(1 - 0.45**8))


def test_the_probability_of_a_greedy_suffix_is_the_product_of_the_largest_probabilities(overfit):
    windows = [Window(TRAIN_ROWS.tokens[begin : begin + 16].astype(np.int64), np.arange(15) >= 7)
               for begin in TRAIN_ROWS.pieces[:, 0].astype(int)]  # fmt: skip
    found = extraction.score_suffixes(overfit, windows, suffix=8, batch_size=8)
    for suffix, targets in zip(found, score_windows(overfit, windows, Scoring(15)), strict=True):
        assert suffix.extracted
        assert suffix.log_p == pytest.approx(float(np.log(targets.confidence.astype(np.float64)).sum()), abs=1e-5)


def test_batch_size_and_order_of_windows_change_nothing(overfit, untrained):
    random = np.random.Generator(np.random.PCG64(5))
    for model in (overfit, untrained):
        windows = [
            Window(random.integers(2, VOCAB, length), np.ones(length - 1, dtype=bool))
            for length in random.integers(10, 20, 50)
        ]
        expected = extraction.score_suffixes(model, windows, suffix=SUFFIX, batch_size=1)
        order = random.permutation(50)
        for batch_size in (3, 64):
            mixed = extraction.score_suffixes(model, [windows[i] for i in order], suffix=SUFFIX, batch_size=batch_size)
            for place, found in zip(order.tolist(), mixed, strict=True):
                assert (found.run, found.matched) == (expected[place].run, expected[place].matched)
                assert found.log_p == pytest.approx(expected[place].log_p, rel=1e-6, abs=1e-6)


def test_two_runs_are_equal(overfit, tmp_path):
    results = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        job = job_of(overfit, tmp_path / name)
        result = measured(job)
        plots = {file.name: file.read_bytes() for file in job.plots.iterdir()}
        results.append((result.part.model_dump_json(), [f.model_dump_json() for f in result.findings], plots))
    assert results[0] == results[1]


def changed(change):
    """Every window that is scored is another one."""

    def apply(monkeypatch):
        scored = extraction.score_windows
        monkeypatch.setattr(
            extraction, "score_windows", lambda model, windows, how: scored(model, map(change, windows), how)
        )

    return apply


def longer(**sides):
    """Scoring of windows that have become longer."""

    def change(window):
        tokens = np.pad(window.tokens, sides["pad"], constant_values=PAD)
        return Window(tokens, np.pad(window.scored, sides["pad"], constant_values=sides["scored"]))

    def apply(monkeypatch):
        changed(change)(monkeypatch)
        monkeypatch.setattr(extraction, "Scoring", lambda length, **how: Scoring(length + sum(sides["pad"]), **how))

    return apply


def moved_windows(monkeypatch):
    """Windows begin three tokens after the pieces of training."""
    drawn = part_module.member_windows

    def moved(job):
        def later(window):
            tokens = job.data.train_rows.tokens[window.start + 3 : window.start + 3 + PREFIX + SUFFIX]
            return replace(window, window=replace(window.window, tokens=tokens.astype(np.int64)))

        found = drawn(job)
        return replace(found, windows=[later(window) for window in found.windows])

    monkeypatch.setattr(part_module, "member_windows", moved)


def shifted_labels(monkeypatch):
    """The logits of a token are compared with the token itself, not with the next one."""
    rows = likelihood._rows

    def shifted(windows, count, width):
        inputs, labels, *rest = rows(windows, count, width)
        return inputs, np.where(labels == IGNORE, IGNORE, inputs), *rest

    monkeypatch.setattr(likelihood, "_rows", shifted)


def text_ends_early(monkeypatch):
    """Half of all tokens end a text."""
    generate = extraction.generate

    def ended(model, tokenizer, prompts, sampling, **how):
        ends = tuple(range(2, VOCAB // 2))
        return generate(model, tokenizer, [replace(prompt, ends=ends) for prompt in prompts], sampling, **how)

    monkeypatch.setattr(extraction, "generate", ended)


def both_sides_from_train(monkeypatch):
    monkeypatch.setattr(part_module, "held_out_windows", part_module.member_windows)


def other_token_at_the_seam(window):
    """A text that is cut before it is encoded has other tokens where it was cut."""
    tokens = window.tokens.copy()
    at = len(tokens) - SUFFIX
    tokens[at - 1 : at + 1] = VOCAB - 1 - tokens[at - 1 : at + 1] % 50
    return replace(window, tokens=tokens)


def one_position_early(window):
    """The bug of lm-extraction-benchmark: one token of the prefix in, the last one of the suffix out."""
    return replace(window, scored=np.append(window.scored[1:], False))


MISTAKES = {
    "the text is encoded again at the seam": changed(other_token_at_the_seam),
    "windows are not aligned with the pieces": moved_windows,
    "a BOS is put before the window": longer(pad=(1, 0), scored=False),
    "the labels are not shifted": shifted_labels,
    "the scored tokens are off by one": changed(one_position_early),
    "padding on the left shifts the positions": longer(pad=(4, 0), scored=False),
    "the text ends early": text_ends_early,
    "members and held-out text both come from train": both_sides_from_train,
}


# What an audit of an unknown model notices, without a known answer
CONTROLS = {
    "the labels are not shifted": {part_module.OWN_TEXT, part_module.AGREEMENT},
    "the scored tokens are off by one": {part_module.OWN_TEXT},
    "the text is encoded again at the seam": {part_module.OWN_TEXT},
    "the text ends early": {part_module.OWN_TEXT, part_module.AGREEMENT},
    "members and held-out text both come from train": {part_module.HELD_OUT_TEXT},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_known_mistake_is_noticed(mistake, overfit, untrained, tmp_path, monkeypatch):
    """On the overfit model the known answer or a control must fail, or a control on the untrained one."""
    MISTAKES[mistake](monkeypatch)
    found = [answer(measured(job_of(model, tmp_path)).part) for model in (overfit, untrained)]
    assert found != [(1.0, 0.0, set()), (0.0, 0.0, set())]
    if mistake in CONTROLS:
        assert found[0][2] | found[1][2] >= CONTROLS[mistake]


OTHER_LENGTHS = {
    "padding counts as a match": longer(pad=(0, 3), scored=True),
    "no label is left, as if padding and ignored labels were equal": changed(
        lambda window: replace(window, scored=np.zeros_like(window.scored))
    ),
}


@pytest.mark.parametrize("mistake", OTHER_LENGTHS)
def test_more_or_fewer_tokens_than_the_suffix_has_are_an_error(mistake, untrained, tmp_path, monkeypatch):
    OTHER_LENGTHS[mistake](monkeypatch)
    with pytest.raises(AssertionError):
        memorisation(job_of(untrained, tmp_path))


def test_dropout_is_noticed(overfit, tmp_path):
    model = build_model(SHAPE.model_copy(update={"dropout": 0.5}), vocab_size=VOCAB, end=END, pad=PAD, seed=1)
    model.load_state_dict(overfit.state_dict())
    assert answer(measured(job_of(model.eval(), tmp_path)).part) == (1.0, 0.0, set())
    torch.manual_seed(0)
    first, second = (answer(measured(job_of(model.train(), tmp_path)).part) for _ in range(2))
    assert first[0] < 1
    assert part_module.OWN_TEXT in first[2] & second[2]


def test_constant_text_is_trivial_and_proves_nothing(untrained, tmp_path):
    """A model that always writes one token would extract it; no number is about such text."""
    constant = packed(*([7] * (ROW - 1) for _ in range(5)), seq_len=ROW)
    result = measured(job_of(untrained, tmp_path, train=constant))
    assert result.part.numbers["extracted"].why == "there is no window of this kind of text"
    assert result.part.numbers["excess"].why == "there is no window of train text"
    trivial = [line for line in result.part.tables["by_kind"] if line["text"] == "trivial"]
    assert [(line["set"], line["windows"]) for line in trivial] == [("train", 5), ("held-out", 0)]
    assert not next(control for control in result.part.controls if control.name == part_module.OWN_TEXT).passed


def test_without_train_text_the_part_is_skipped_and_its_tables_are_empty(untrained, tmp_path):
    for missing in ({"train": None}, {"held_out": None}):
        job = job_of(untrained, tmp_path, **missing)
        result = measured(job)
        assert (result.part.status, result.part.numbers) == ("skipped", {})
        assert (job.plots / "extraction_by_prefix.csv").read_text() == "set,prefix,windows,share,low,high\n"
        assert (job.plots / "extraction_tries.csv").read_text() == "set,tries,windows,share,low,high\n"


def test_held_out_text_that_stands_in_train_is_no_held_out_text(overfit, tmp_path):
    """An overfit model writes it; it is counted apart and named in a note."""
    texts = [rows.tokens[1:ROW].tolist() for rows in (TRAIN_ROWS, TEST_ROWS)]
    result = measured(job_of(overfit, tmp_path, held_out=packed(*texts, seq_len=ROW)))
    assert answer(result.part) == (1.0, 0.0, set())
    assert result.part.numbers["held_out"].trials == 1
    apart = next(line for line in result.part.tables["by_kind"] if line["text"] == "stands in train")
    assert (apart["windows"], apart["share"]) == (1, 1.0)
    assert any("such as a common header: 1;" in note for note in result.part.notes)


def test_a_train_set_that_is_also_the_held_out_set_proves_nothing(overfit, tmp_path):
    result = measured(job_of(overfit, tmp_path, held_out=TRAIN_ROWS))
    assert result.part.numbers["excess"].why == "there is no window of held-out text"
    assert part_module.HELD_OUT_TEXT in answer(result.part)[2]


def test_streams_without_rows_give_no_window(untrained, tmp_path):
    empty = packed(seq_len=ROW)
    result = measured(job_of(untrained, tmp_path, train=empty, held_out=empty))
    assert {number.value for number in result.part.numbers.values()} == {None}
    assert len(answer(result.part)[2]) == 3
