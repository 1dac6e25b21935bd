"""Generated tokens become texts that end at END."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from codex_ml.inference.generation import sample_texts

END, PAD, BOS = 0, 1, 9


class Letters:
    """A tokenizer whose token 2 + i is the i-th letter."""

    begin, end, pad = END, END, PAD

    def decode(self, ids):
        return "".join(chr(95 + token) for token in ids)


class Scripted:
    """A model that returns given tokens and records its calls."""

    device = "cpu"
    config = SimpleNamespace(eos_token_id=END, pad_token_id=PAD, is_encoder_decoder=False)

    def __init__(self, rows):
        self.rows, self.asked = iter(rows), []

    def generate(self, start, **options):
        self.asked.append((start.tolist(), options))
        return torch.cat([start, torch.tensor([next(self.rows) for _ in start])], dim=1)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ([2, 3, 4, 5], "abcd"),  # as long as allowed
        ([2, 3, END, PAD], "ab"),
        ([END, PAD, PAD, PAD], ""),
        ([2, END, 3, END], "a"),  # nothing behind the first END counts
        ([2, PAD, 3, END], "ab"),  # PAD is no text, also where the model says it itself
    ],
)
def test_text_ends_at_end(row, text):
    assert sample_texts(Scripted([row]), Letters(), count=1, tokens=4, batch_size=8, seed=1) == [text]


def test_as_many_texts_as_asked_for_from_the_whole_distribution():
    model = Scripted([[2], [3], [4], [5], [6]])
    assert sample_texts(model, Letters(), count=5, tokens=1, batch_size=2, seed=1) == ["a", "b", "c", "d", "e"]
    assert [start for start, _ in model.asked] == [[[END], [END]], [[END], [END]], [[END]]]
    for _, options in model.asked:
        wanted = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 1}
        assert wanted.items() <= options.items()


def test_a_sample_begins_with_the_bos_of_its_tokenizer_and_ends_at_its_end():
    """As documents do in training, whatever the model's own configuration says."""
    tokenizer = Letters()
    tokenizer.begin, tokenizer.end = BOS, 5
    model = Scripted([[2, 3, 5, PAD]])
    assert sample_texts(model, tokenizer, count=1, tokens=4, batch_size=8, seed=1) == ["ab"]
    ((start, options),) = model.asked
    assert (start, options["eos_token_id"], options["pad_token_id"]) == ([[BOS]], 5, PAD)
