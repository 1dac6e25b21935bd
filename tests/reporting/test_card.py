from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from codex_ml.errors import safe_text
from codex_ml.reporting.card import fenced, render_card
from codex_ml.reporting.facts import Facts

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


def test_model_index_equals_the_metrics(facts: MakeFacts) -> None:
    known = facts()
    data = ModelCard(render_card(known)).data
    values = {result.metric_type: result.metric_value for result in data.eval_results or []}
    assert values == {"bits_per_byte": 2.125, "token_accuracy": 0.3125}
    assert {(r.dataset_name, r.dataset_split) for r in data.eval_results or []} == {("test split", "test")}
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


def test_equal_facts_give_equal_bytes_and_no_secret_value(facts: MakeFacts, secret_value: str) -> None:
    card = render_card(facts())
    assert render_card(facts()) == card
    assert secret_value not in card


@pytest.mark.parametrize(
    ("architecture", "kind", "factory", "scored"),
    [
        (
            "gpt2",
            "A decoder-only language model in the shape of GPT-2, ",
            "AutoModelForCausalLM",
            "before it in its window",
        ),
        ("t5", "An encoder-decoder, which goes on from ", "AutoModelForSeq2SeqLM", "which the encoder reads."),
    ],
)
def test_the_card_tells_what_kind_of_model_it_is_how_it_loads_and_how_it_was_scored(
    facts: MakeFacts, architecture: str, kind: str, factory: str, scored: str
) -> None:
    made = facts()
    made.lineage["train"].params["model"]["architecture"] = architecture
    card = render_card(made)
    assert kind in card
    assert f"model = {factory}.from_pretrained(" in card
    assert scored in card


def test_a_tokenizer_that_loses_text_has_no_bits_per_byte_in_the_card(facts: MakeFacts) -> None:
    """Its tokens cost 1.09 bits per byte, beside zlib's 5.60, because they leave text out."""
    made = facts(lossy=True)
    card = render_card(made)
    results = ModelCard(card).data.eval_results or []
    assert {result.metric_type: result.metric_value for result in results} == {"token_accuracy": 0.3125}
    assert "| bits per byte | none; the tokenizer loses text |" in card
    assert card.count("does not give 7 of 20 back") == 3  # the summary, the evaluation, the limitations
    assert not re.search(r"[0-9] bits per byte|better than|worse than|Less is better", card)
    assert "31.25 % of the tokens of 20 unseen documents predicted" in card
