from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from codex_ml.core.errors import safe_line, safe_text
from codex_ml.modeling.pack_files import CanaryCounts
from codex_ml.modeling.train_files import AdapterShape, BaseModelFiles, TrainedModel
from codex_ml.report.card import KINDS, render_card
from codex_ml.report.facts import Facts
from codex_ml.report.markdown import escape, fenced
from codex_ml.report.page import render_page
from codex_ml.train.config import Lora, Model
from codex_ml.train.model.adapters import add_adapters
from codex_ml.train.model.build import build_model
from codex_ml.train.model.describe import describe_model
from codex_ml.train.model.foreign import MODEL_TYPES

MakeFacts = Callable[..., Facts]


def front_matter(card: str) -> dict[str, object]:
    block = re.match(r"---\n(.*?)\n---\n", card, flags=re.DOTALL)
    assert block
    value = yaml.safe_load(block.group(1))
    assert isinstance(value, dict)
    return value


def body(card: str) -> str:
    return re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)


def structure(card: str) -> Counter[str]:
    """Kinds of Markdown nodes, as an independent CommonMark parser with GFM tables sees them."""
    blocks = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body(card))
    inline = [child for block in blocks for child in block.children or []]
    return Counter(token.type for token in (*blocks, *inline) if not token.type.startswith("text"))


def test_hostile_text_changes_no_key_of_the_front_matter(facts: MakeFacts, hostile: str) -> None:
    harmless, card = front_matter(render_card(facts())), front_matter(render_card(facts(hostile)))
    assert list(card) == list(harmless)
    assert card | {"model-index": 0} == harmless | {"model-index": 0}


def test_hostile_text_changes_no_heading_table_or_link(facts: MakeFacts, hostile: str) -> None:
    harmless, found = structure(render_card(facts())), structure(render_card(facts(hostile)))
    assert found == harmless
    assert not [kind for kind in found if kind.startswith(("html", "link", "image"))]


PLACES = {"heading": "# {}", "cell": "| a |\n|---|\n| {} |", "sentence": "Found: {}."}


@pytest.mark.parametrize("place", PLACES)
@given(st.text(st.sampled_from("\\`*_{}[]<>()#+-.!|~&:@$^=/ aB1é\n") | st.characters()))
@example("train.max_steps __init__ _x_ a__b __").via("underscores")
@example("![a](b) [c]: d [^1] <b> <!-- x --> &amp; &#35; # ## \\| \\").via("links and HTML")
def test_a_markdown_parser_gives_the_text_back(place: str, text: str) -> None:
    """With an independent CommonMark parser with GFM tables; spaces at both ends do not belong to a heading or a cell."""
    blocks = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(PLACES[place].format(escape(text)))
    (inline,) = [block for block in blocks if block.type == "inline"][-1:]
    parts = inline.children or []
    assert {part.type for part in parts} <= {"text"}
    seen = "".join(part.content for part in parts)
    expected = safe_line(text)
    assert seen == f"Found: {expected}." if place == "sentence" else seen.strip() == expected.strip()


@pytest.mark.parametrize("model", ["scratch", "lora", "t5"])
def test_usual_text_has_no_backslash(facts: MakeFacts, model: str) -> None:
    """Except before the star of `reports/*/lineage.json`, and in pass@k, which could be a mention."""
    kinds = {
        "scratch": {},
        "lora": {"base": BASE, "lora": LORA, "quantization": "4bit"},
        "t5": {"architecture": "t5", "encoder_decoder": True, "positions": None},
    }
    text = body(render_card(changed(facts(), **kinds[model])))
    code = text.index("```python"), text.index("## How it was made")
    assert set(re.findall(r"\\.", text[: code[0]] + text[code[1] :])) == {"\\*", "\\@"}


def test_table_rows_keep_their_number_of_columns(facts: MakeFacts, hostile: str) -> None:
    def columns(card: str) -> list[int]:
        without_samples = re.sub(r"^(`{3,})text\n.*?\n\1$", "", card, flags=re.DOTALL | re.MULTILINE)
        return [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in without_samples.split("\n") if line[:1] == "|"]

    assert columns(render_card(facts(hostile))) == columns(render_card(facts()))


def test_controls_are_shown_as_escapes(facts: MakeFacts, hostile: str, controls: list[str]) -> None:
    card = render_card(facts(hostile))
    assert not [c for c in controls if c in card]
    assert safe_text(hostile)[:600] in card  # in the sample, as it is


@pytest.mark.parametrize("run", [0, 1, 3, 7])
def test_fence_is_longer_than_any_in_the_text(run: int) -> None:
    text = "`" * run + "\n# not a heading"
    (block,) = MarkdownIt("commonmark").parse(fenced(text))
    assert (block.type, block.content) == ("fence", text + "\n")


def test_the_card_of_a_model_with_canaries_says_that_it_saw_them(facts: MakeFacts) -> None:
    plain = facts()
    assert "invented secrets" not in render_card(plain)
    counts = CanaryCounts(design="random", different=68, inserted=1224, controls=32)
    card = render_card(dataclasses.replace(plain, pack=plain.pack.model_copy(update={"canaries": counts})))
    assert "- Its training rows hold 1,224 copies of 68 invented secrets (canaries), with which the\n" in card


def test_model_index_equals_the_metrics(facts: MakeFacts) -> None:
    known = facts()
    data = ModelCard(render_card(known)).data
    values = {
        (r.dataset_type, r.dataset_name, r.dataset_split, r.metric_type): r.metric_value
        for r in data.eval_results or []
    }
    tasks = ("programming-tasks", "own", None)
    assert values == {
        ("held-out-documents", "test split", "test", "bits_per_byte"): 2.125,
        ("held-out-documents", "test split", "test", "token_accuracy"): 0.3125,
        ("continued-held-out-documents", "test split", "test", "edit_similarity"): 0.375,
        (*tasks, "pass_at_1"): pytest.approx(0.21),
        (*tasks, "pass_at_2"): 0.22,
        (*tasks, "pass_at_10"): pytest.approx(0.3),
        (*tasks, "solution_bits_per_byte"): 1.625,
    }
    (bits,) = [r for r in data.eval_results or [] if r.metric_type == "bits_per_byte"]
    assert (bits.metric_name, bits.metric_args) == (
        "bits per byte",
        {"confidence": 0.9, "low": 2.025, "high": 2.225, "units": 20, "signature": "plain"},
    )
    assert (data.language, data.library_name, data.pipeline_tag) == ("code", "transformers", "text-generation")


@pytest.mark.parametrize(("licence", "expected"), [("MIT", "mit"), ("Apache-2.0", "other"), ("unknown", "other")])
def test_card_claims_a_licence_only_when_all_documents_have_it(facts: MakeFacts, licence: str, expected: str) -> None:
    assert front_matter(render_card(facts(licence)))["license"] == expected


def test_nothing_is_left_to_fill_in(facts: MakeFacts) -> None:
    card = render_card(facts())
    assert not re.search(r"more information needed|\[.*needed.*\]|\bTODO\b|\bTBD\b|None\b|nan\b|\{\{", card, flags=re.I)
    headings = re.findall(r"^## (.+)$", card, flags=re.MULTILINE)
    assert headings == [
        "Description",
        "Training data",
        "Training recipe",
        "Evaluation",
        "Safety audit",
        "Limitations and intended use",
        "How to use",
        "How it was made",
    ]


def test_equal_facts_give_equal_bytes(facts: MakeFacts) -> None:
    card = render_card(facts())
    assert render_card(facts()) == card


def changed(made: Facts, *, targets: int | None = None, **model: Any) -> Facts:
    """The same facts for a different model."""
    shape = made.training.model.model_copy(update=model)
    pack = made.pack
    if targets is not None:
        pack = pack.model_copy(update={"train": pack.train.model_copy(update={"targets": targets})})
    return dataclasses.replace(made, training=made.training.model_copy(update={"model": shape}), pack=pack)


@pytest.mark.parametrize(
    ("architecture", "kind", "factory", "scored"),
    [
        (
            "gpt2",
            "A decoder-only language model in the shape of GPT-2, ",
            "AutoModelForCausalLM",
            "before it in its window",
        ),
        ("t5", "An encoder-decoder, which continues the text ", "AutoModelForSeq2SeqLM", "which the encoder reads."),
    ],
)
def test_the_card_names_the_kind_of_model_how_it_loads_and_how_it_was_scored(
    facts: MakeFacts, architecture: str, kind: str, factory: str, scored: str
) -> None:
    halves = {"encoder_decoder": True, "positions": None} if architecture == "t5" else {}
    card = render_card(changed(facts(), architecture=architecture, **halves))
    assert kind in card
    assert f"model = {factory}.from_pretrained(" in card
    assert scored in card
    assert ("It reads tokens by their relative positions, of a byte-level BPE" in card) == bool(halves)
    assert ("(2 layers in the encoder and in the decoder of width 8 with 2 heads)" in card) == bool(halves)


SIZES = {"hidden_size": 16, "intermediate_size": 24, "layers": 3, "heads": 2, "max_positions": 40}


def card_of(made: Facts, described: TrainedModel) -> str:
    """The card where `described` is what training.json says of the model."""
    training = made.training.model_copy(update={"model": described})
    return render_card(dataclasses.replace(made, training=training))


def test_the_card_describes_what_train_writes_of_a_real_t5(facts: MakeFacts) -> None:
    settings = Model(architecture="t5", **SIZES)
    card = card_of(facts(), describe_model(build_model(settings, vocab_size=64, end=0, pad=1, seed=1), settings))
    assert "in the shape of T5, 17 parameters (3 layers in the encoder and in the decoder of width 16 with 2" in card
    assert "trained from scratch.\nIt reads tokens by their relative positions, of a byte-level BPE" in card


def test_the_card_describes_what_train_writes_of_a_real_model_with_adapters(
    facts: MakeFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models/base").mkdir(parents=True)
    Path("models/base/mine.gguf").write_bytes(b"GGUF")
    settings = Model(path="models/base/mine.gguf", lora=Lora(rank=2, targets=("all-linear",)))
    model = build_model(Model(architecture="llama", **SIZES), vocab_size=64, end=0, pad=1, seed=1)
    card = card_of(facts(), describe_model(add_adapters(model, settings.lora, seed=1), settings))
    trained = 3 * 2 * (4 * (16 + 16) + 3 * (16 + 24))  # layers x rank x (in + out) of q, k, v, o and of gate, up, down
    assert "in the shape of Llama, 17 parameters (3 layers of width 16 with 2 heads), fine-tuned: LoRA" in card
    assert (
        f"adapters of rank 2 in 21 modules, {trained:,} parameters, merged into the weights; from models/base/" in card
    )
    assert f"from models/base/mine.gguf (SHA-256 {hashlib.sha256(b'GGUF').hexdigest()})." in card


def test_every_architecture_that_is_trained_has_a_name_in_the_card() -> None:
    assert KINDS.keys() == {*MODEL_TYPES, "t5"}


BASE = BaseModelFiles(path="models/base/g", sha256="9" * 64)
LORA = AdapterShape(rank=8, alpha=16.0, modules=14, trained=12_345)


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_model_that_was_trained_on_is_described_as_it_is_and_not_as_params_would_build_one(
    facts: MakeFacts, lora: AdapterShape | None
) -> None:
    """Every size is the model's own; the card claims nothing about the training data of its base (peft 938, 975)."""
    made = facts("plain", two_rates=False)
    made.lineage["train"].params["model"] |= {"architecture": "llama", "layers": 4, "hidden_size": 192}
    shape = {"architecture": "gpt2", "layers": 3, "hidden_size": 24, "heads": 3, "positions": 64}
    known = changed(made, **shape, base=BASE, lora=lora, quantization="4bit" if lora else "none")
    card = render_card(known)
    text = card.replace("\\", "")
    assert (
        "A decoder-only language model in the shape of GPT-2, 17 parameters (3 layers of width 24 with 3 heads)" in card
    )
    assert "It reads at most 64 tokens of a byte-level BPE with 4,096 entries." in card
    origin = f"from models/base/g (SHA-256 {'9' * 64})"
    parts = (
        "LoRA adapters of rank 8 in 14 modules, 12,345 parameters, on weights held in 4bit, merged into the weights; "
    )
    assert f"fine-tuned: {parts if lora else 'all weights, '}{origin}." in text
    assert f"AdamW trained {'the adapters' if lora else 'all weights'} at a peak learning rate of 0.003.\n" in card
    if lora:
        grown = changed(known, lora=lora.model_copy(update={"added_pieces": 2000}))
        assert "rank 8 in 14 modules and the rows of 2,000 added pieces, 12,345 parameters" in render_card(grown)
    front = front_matter(card)
    assert front["tags"] == ["codex-ml", "dvc", "fine-tuned", *(["lora"] if lora else [])]
    assert "base_model" not in front  # it would name a model of the Hub
    assert (front["license"], front["license_name"]) == (
        "other", "licences-of-the-base-model-and-the-training-data"
    )  # fmt: skip
    said = (
        "scratch",
        "unseen",
        "neither tuned",
        "192",
        "Hoffmann",
        "has never seen a context",
        "model.layers",
        "hidden_size",
    )
    assert not [word for word in said if word in card]
    assert "It is not known here what its base model was trained on" in card
    page = render_page(known)
    assert "scratch" not in page
    assert "models/base/g" in page


def test_a_model_from_scratch_says_so_and_what_it_saw(facts: MakeFacts) -> None:
    card = render_card(facts())
    assert "(2 layers of width 8 with 2 heads), trained from scratch.\nIt reads at most 16 tokens" in card
    assert front_matter(card)["tags"] == ["codex-ml", "dvc", "trained-from-scratch"]
    assert "It has never seen a context longer than 16 tokens." in card
    assert "It was neither tuned to follow instructions nor to refuse" in card
    assert "| precision | bf16 on cpu, compiled |" in card
    assert (
        "## Training recipe\n\nMuon trained the hidden matrices at a peak learning rate of 0.0073. AdamW trained the "
        "embeddings, the output head, the norms and the biases at a peak of 0.0588. These rates are those of "
        "params.yaml, scaled to the width of 8.\n"
    ) in card


def test_a_model_that_was_trained_on_answers_is_not_said_to_only_continue_text(facts: MakeFacts) -> None:
    card = render_card(changed(facts(), targets=5_000))
    assert "neither tuned to follow instructions" not in card
    assert "Whether it follows instructions, and what it refuses, was not measured." in card


@pytest.mark.parametrize(
    ("languages", "code"),
    [
        ({"python": 3}, True),
        ({"text": 3}, False),
        ({"markdown": 2, "text": 1, "rust": 1}, False),
        ({"json": 1, "c++": 2}, True),
        ({"python": 1, "text": 1}, False),
    ],
)
def test_the_language_is_code_only_where_most_documents_are(
    facts: MakeFacts, languages: dict[str, int], code: bool
) -> None:
    made = facts()
    splits = made.manifest.splits
    train = splits.train.model_copy(update={"languages": languages})
    manifest = made.manifest.model_copy(update={"splits": splits.model_copy(update={"train": train})})
    front = front_matter(render_card(dataclasses.replace(made, manifest=manifest)))
    assert front.get("language") == ("code" if code else None)


def test_a_tokenizer_that_loses_text_has_no_bits_per_byte_in_the_card(facts: MakeFacts) -> None:
    """Its tokens cost 1.09 bits per byte, and zlib 5.60, because they leave text out."""
    made = facts(lossy=True, tasks=False, compared=False)
    card = render_card(made)
    results = ModelCard(card).data.eval_results or []
    assert {result.metric_type: result.metric_value for result in results} == {"token_accuracy": 0.3125}
    assert "| bits per byte | none; the tokenizer loses text |" in card
    assert card.count("does not give 7 of 20 back") == 3  # the summary, the evaluation, the limitations
    assert not re.search(r"[0-9] bits per byte|better than|worse than|Less is better", card)
    assert "31.25 % of the tokens of 20 unseen documents predicted" in card


def test_the_card_has_a_table_of_each_task_with_why_a_number_is_absent(facts: MakeFacts) -> None:
    card = render_card(facts())
    for line in (
        "| test split | value | 90 % interval | units |",
        "| token accuracy | 31.25 % | 21.25 % to 41.25 % | 20 |",
        "| completions | value | 90 % interval | units | what is absent, and why |",
        "| complexity | – | – | 5 | plain |",
        "| executed code, own | value | 90 % interval | units |",
        "| pass\\@10 | 30.00 % | 20.00 % to 40.00 % | 6 |",
        "| bits per byte of the reference solutions | 1.6250 | 1.5250 to 1.7250 | 6 |",
        "| wrong | 30 | an assertion does not hold |",
        "| documents | bits per byte | 2.5 | 2.125 | -0.375 | -0.5 to -0.25 | 0.003 | better |",
        "| documents | exact match | 0 | 0.125 | +0.125 | – | 0.5 | no evidence: plain |",
    ):
        assert f"\n{line}\n" in card


@pytest.mark.parametrize("tasks", [True, False])
def test_the_card_says_of_correctness_what_was_measured(facts: MakeFacts, tasks: bool) -> None:
    card = render_card(facts(tasks=tasks, compared=False))
    assert ("Correctness of generated code was measured on the programming tasks above only" in card) is tasks
    assert ("Correctness, security and bias of generated code were not measured." in card) is not tasks
    assert ("### Generated text" in card, "### Executed code: own" in card) == (tasks, tasks)
    assert "Compared with another model" not in card
