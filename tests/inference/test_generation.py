"""Generated text: equal to transformers' own greedy text, the same in any batch and order, ended as asked for."""

from __future__ import annotations

import re
from collections import Counter
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.inference.generation import Prompt, generate
from codex_ml.inference.sampling import Sampling
from codex_ml.train.config import Model
from codex_ml.train.model.build import build_model

pytestmark = pytest.mark.usefixtures("torch_on_one_thread")

END, PAD, BOS, VOCAB = 0, 1, 9, 60
ARCHITECTURES = ("llama", "gpt2", "qwen3", "gpt_neox", "mistral", "t5")
SIZES = {"hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 2}


class Letters:
    """A tokenizer whose token 2 + i is the i-th letter."""

    begin, end, pad = END, END, PAD
    special = MappingProxyType({"END": END, "PAD": PAD, "BOS": BOS})
    backend = SimpleNamespace(token_to_id=lambda name: None)  # no byte tokens

    def decode(self, ids):
        return "".join(chr(95 + token) for token in ids)


class Scripted:
    """A model that writes given texts: the prompt's last token is the number of the text, counted from BOS + 1."""

    device = torch.device("cpu")
    config = SimpleNamespace(is_encoder_decoder=False)

    def __init__(self, *texts):
        self.texts, self.asked = texts, []

    def forward(self, input_ids, use_cache):
        self.asked.append(input_ids.tolist())
        logits = torch.zeros(*input_ids.shape, VOCAB)
        for row, ids in enumerate(input_ids.tolist()):
            at = max(place for place, token in enumerate(ids) if token > BOS)
            logits[row, -1, self.texts[ids[at] - BOS - 1][len(ids) - at - 1]] = 99
        return SimpleNamespace(logits=logits)

    __call__ = forward


def written(model, prompts, *, tokenizer=None, batch_size=8, seed=1, **sampling):
    return list(
        generate(model, tokenizer or Letters(), prompts, Sampling(**sampling), seed=seed, batch_size=batch_size)
    )


def one(*tokens, max_tokens=4, ends=(), **sampling):
    (text,) = written(Scripted(tokens), [Prompt([BOS + 1], "a", ends=ends)], max_tokens=max_tokens, **sampling)
    return text.text, text.tokens, text.finished


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    shape = Model(architecture=request.param, max_positions=64, **SIZES)
    found = build_model(shape, vocab_size=VOCAB, end=END, pad=PAD, seed=3).eval()
    with torch.no_grad():  # with small random weights the model repeats its last token
        for name, weight in found.named_parameters():
            weight.mul_(8 if weight.dim() > 1 and not re.search("embed|head|wte|wpe|shared", name) else 1)
    return found


def prompts(count=9, samples=1):
    random = np.random.Generator(np.random.PCG64(4))
    texts = [random.integers(2, VOCAB, length) for length in random.permutation(np.arange(1, count + 1))]
    return [Prompt(ids, f"prompt {number}", sample) for number, ids in enumerate(texts) for sample in range(samples)]


def test_a_padded_batch_writes_what_transformers_writes_one_by_one(model):
    """Greedy, in float32; END may come early, and the positions of the padding must not count."""
    asked = prompts(16)
    ours = written(model, asked, max_tokens=12)
    for prompt, text in zip(asked, ours, strict=True):
        ids = torch.tensor([prompt.ids.tolist()])
        output = model.generate(ids, do_sample=False, max_new_tokens=12, eos_token_id=END, pad_token_id=PAD)[0]
        theirs = output.tolist()[1 if model.config.is_encoder_decoder else len(prompt.ids) :]
        theirs = theirs[: theirs.index(END)] if END in theirs else theirs
        assert list(text.tokens) == theirs
        assert text.finished == ("length" if len(theirs) == 12 else "end")
    assert len({text.tokens for text in ours}) > 8


def test_repetition_penalty_writes_what_transformers_writes(model):
    asked = prompts(6)
    ours = written(model, asked, max_tokens=12, repetition_penalty=1.7)
    for prompt, text in zip(asked, ours, strict=True):
        ids = torch.tensor([prompt.ids.tolist()])
        output = model.generate(
            ids, do_sample=False, max_new_tokens=12, eos_token_id=END, pad_token_id=PAD, repetition_penalty=1.7
        )[0]
        theirs = output.tolist()[1 if model.config.is_encoder_decoder else len(prompt.ids) :]
        assert list(text.tokens) == (theirs[: theirs.index(END)] if END in theirs else theirs)


@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_neither_batch_nor_order_changes_a_text(model, temperature):
    asked = prompts(9, samples=2)
    chosen = {"max_tokens": 10, "temperature": temperature, "top_p": 0.95, "top_k": 40}
    once = written(model, asked, batch_size=1, **chosen)
    for size in (4, 7):
        assert written(model, asked, batch_size=size, **chosen) == once
    order = np.random.Generator(np.random.PCG64(2)).permutation(len(asked))
    shuffled = written(model, [asked[place] for place in order], batch_size=4, **chosen)
    assert shuffled == [once[place] for place in order]
    assert (once[0] == once[1]) == (temperature == 0)  # two samples of one prompt


def test_a_shorter_text_is_the_begin_of_a_longer_one_and_another_seed_writes_another(model):
    short, long, other = (
        written(model, prompts(), max_tokens=most, temperature=1.0, seed=seed)
        for most, seed in ((5, 1), (9, 1), (9, 2))
    )
    assert [text.tokens for text in short] == [text.tokens[:5] for text in long]
    assert [text.tokens for text in long] != [text.tokens for text in other]


def test_an_encoder_decoder_may_begin_with_a_text_that_its_decoder_wrote():
    """As in the first half of a row: the encoder reads the first token, the decoder begins with the others."""
    shape = Model(architecture="t5", **SIZES)
    t5 = build_model(shape, vocab_size=VOCAB, end=END, pad=PAD, seed=3).eval()
    asked = [Prompt(prompt.ids, prompt.key, read=1) for prompt in prompts(6)]
    for prompt, text in zip(asked, written(t5, asked, max_tokens=8), strict=True):
        start = torch.tensor([[t5.config.decoder_start_token_id, *prompt.ids[1:].tolist()]])
        output = t5.generate(
            torch.tensor([prompt.ids[:1].tolist()]), decoder_input_ids=start, do_sample=False, max_new_tokens=8,
            eos_token_id=END, pad_token_id=PAD,
        )  # fmt: skip
        theirs = output[0].tolist()[len(prompt.ids) :]
        assert list(text.tokens) == (theirs[: theirs.index(END)] if END in theirs else theirs)


@pytest.mark.parametrize(
    ("tokens", "text", "kept", "finished"),
    [
        ((2, 3, 4, 5), "abcd", (2, 3, 4, 5), "length"),
        ((2, 3, END, PAD), "ab", (2, 3), "end"),
        ((END, PAD, PAD, PAD), "", (), "end"),
        ((2, PAD, 3, END), "ab", (2, PAD, 3), "end"),  # PAD is not text, also where the model chooses it
    ],
)
def test_text_ends_at_end_or_at_its_length(tokens, text, kept, finished):
    assert one(*tokens) == (text, kept, finished)


def test_a_prompt_may_have_further_ends():
    assert one(2, 3, 5, 4, ends=(5,)) == ("ab", (2, 3), "end")
    assert one(2, END, 3, 4, ends=(5,)) == ("a", (2,), "end")


@pytest.mark.parametrize(
    ("stop", "text", "finished"),
    [
        (("bc",), "a", "stop"),  # across the border of two tokens
        (("d", "bc"), "a", "stop"),
        (("abcd",), "", "stop"),  # the last allowed token completes it
        (("abcde",), "abcd", "length"),
        (("cb",), "abcd", "length"),
    ],
)
def test_text_is_cut_before_the_first_stop_string(stop, text, finished):
    assert one(2, 3, 4, 5, stop=stop)[::2] == (text, finished)


def test_finished_texts_leave_their_batch():
    model = Scripted((2, END), (2, 3, 4, END), (END,))
    texts = written(model, [Prompt([BOS + n], "a") for n in (1, 2, 3)], max_tokens=9)
    assert [text.text for text in texts] == ["a", "abc", ""]
    assert [len(ids) for ids in model.asked] == [3, 2, 1, 1]


def test_prompts_are_cut_on_the_left_where_the_model_sees_no_more(model):
    """The begin token stays. 64 positions hold 57 tokens of a prompt and 7 of 8 new ones: the last is never read."""
    if not getattr(model.config, "max_position_embeddings", None):
        pytest.skip("relative positions have no limit")
    ids = [END, *np.random.Generator(np.random.PCG64(1)).integers(2, VOCAB, 90).tolist()]
    texts = written(
        model, [Prompt(ids, "a"), Prompt([END, *ids[-56:]], "a"), Prompt(ids[-57:], "a")], max_tokens=8, temperature=1.0
    )
    assert texts[0].tokens == texts[1].tokens
    assert [text.cut_prompt for text in texts] == [True, False, False]
    (narrow,) = written(model, [Prompt(ids, "a")], max_tokens=8, temperature=1.0, context=20)
    (same,) = written(model, [Prompt([END, *ids[-12:]], "a")], max_tokens=8, temperature=1.0)
    assert narrow.tokens == same.tokens
    with pytest.raises(UserError, match="max_tokens 65 exceeds the 64 tokens that the model sees at once; lower"):
        written(model, [Prompt(ids, "a")], max_tokens=65)


def test_a_model_without_numbers_is_refused():
    class Diverged(Scripted):
        def forward(self, input_ids, use_cache):
            return SimpleNamespace(logits=torch.full((*input_ids.shape, VOCAB), torch.nan))

        __call__ = forward

    for temperature in (0.0, 1.0):
        with pytest.raises(CheckFailed, match="logits are NaN or infinite"):
            written(Diverged(), [Prompt([3], "a")], max_tokens=2, temperature=temperature)


def test_a_prompt_of_no_tokens_is_refused():
    with pytest.raises(ValueError, match="the prompt 'a' has 0 ids"):
        Prompt([], "a")


def test_no_prompts_are_no_texts():
    assert written(Scripted(), [], max_tokens=3) == []


def test_prompts_are_read_as_they_are_needed():
    """Memory does not grow with their number."""
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield Prompt([BOS + 1], "a")

    texts = generate(Scripted((2, END)), Letters(), endless(), Sampling(4), seed=1, batch_size=2)
    assert next(texts).text == "a"
    assert len(taken) < 100


class Fixed(Scripted):
    """Gives the same distribution at every place."""

    logits = torch.linspace(-2, 2, VOCAB)

    def forward(self, input_ids, use_cache):
        self.asked.append(input_ids.tolist())
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, VOCAB))

    __call__ = forward


def test_samples_at_temperature_1_come_from_the_whole_distribution():
    tokenizer = Letters()

    def sampled(batch_size, seed):
        asked = (Prompt([BOS], "", sample) for sample in range(4000))
        texts = generate(Fixed(), tokenizer, asked, Sampling(1, temperature=1.0), seed=seed, batch_size=batch_size)
        return [text.text for text in texts]

    texts = sampled(500, seed=1)
    counts = Counter(texts)
    counts["END or PAD"] = counts.pop("")
    expected = Fixed.logits.softmax(-1).numpy() * 4000
    expected = np.array([expected[:2].sum(), *expected[2:]])
    found = [counts["END or PAD"], *(counts[tokenizer.decode([token])] for token in range(2, VOCAB))]
    assert sum(found) == 4000
    assert chisquare(found, expected * (sum(found) / expected.sum())).pvalue > 0.01
    assert texts == sampled(64, seed=1)
    assert texts != sampled(500, seed=2)


def others():
    from transformers import (
        BartConfig,
        BartForConditionalGeneration,
        BloomConfig,
        BloomForCausalLM,
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        MambaConfig,
        MambaForCausalLM,
    )

    same = {"vocab_size": VOCAB, "eos_token_id": END, "pad_token_id": PAD, "bos_token_id": BOS}
    yield BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=2, n_head=2, **same))
    yield MambaForCausalLM(MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4, **same))
    yield Gemma3ForCausalLM(
        Gemma3TextConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
            head_dim=16, sliding_window=4, layer_types=["sliding_attention", "full_attention"], **same,
        )
    )  # fmt: skip
    yield BartForConditionalGeneration(
        BartConfig(
            d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64, decoder_start_token_id=BOS,
            forced_eos_token_id=None, tie_word_embeddings=False, **same,
        )
    )  # fmt: skip


@pytest.mark.parametrize("number", range(4))
def test_models_without_positions_or_with_other_caches_write_what_transformers_writes(number):
    """Bloom (positions from the mask), Mamba (a state), Gemma 3 (a sliding window), Bart (positions in the decoder)."""
    torch.manual_seed(5)
    model = list(others())[number].eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(5 if weight.dim() > 1 and not re.search("embed|head|shared", name) else 1)
    asked = prompts(10)
    ours = written(model, asked, max_tokens=10, batch_size=4)
    for prompt, text in zip(asked, ours, strict=True):
        output = model.generate(
            torch.tensor([prompt.ids.tolist()]), do_sample=False, max_new_tokens=10, eos_token_id=END, pad_token_id=PAD
        )[0]
        theirs = output.tolist()[1 if model.config.is_encoder_decoder else len(prompt.ids) :]
        assert list(text.tokens) == (theirs[: theirs.index(END)] if END in theirs else theirs)
    assert len({text.tokens for text in ours}) > 3
