"""A text given token by token: the text of `generate`, and no character that a later token changes."""

from __future__ import annotations

import re
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.inference.generation import Prompt, ended_text, fit_prompt, generate, start_text
from codex_ml.inference.growing_text import REST, Ending, GrowingText
from codex_ml.inference.sampling import Sampling
from codex_ml.inference.text_stream import TextStream
from codex_ml.tokens.borders import decode_after
from codex_ml.tokens.text_tokenizer import TextTokenizer
from codex_ml.train.config import Model
from codex_ml.train.model.build import build_model

pytestmark = pytest.mark.usefixtures("torch_on_one_thread")

END, PAD, BOS = 0, 1, 2
WORDS = ["a", "b", "c", "d", " x", "\n", "stop", "st", "op", "é", "中"]
SIZES = {"hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 2}


def tokenizer_of(vocabulary, decoder):
    backend = Tokenizer(models.WordLevel({text: number for number, text in enumerate(vocabulary)}, unk_token="<pad>"))
    backend.decoder = decoder
    return TextTokenizer(
        end=END, pad=PAD, bos=BOS, unk=None, vocab_size=len(vocabulary), chat_template=None,
        special={"<end>": END, "<pad>": PAD, "<bos>": BOS}, backend=backend,
    )  # fmt: skip


def letters():
    return tokenizer_of(["<end>", "<pad>", "<bos>", *WORDS], decoders.Fuse())


def bytes_of_gpt2():
    """Each byte is a token: GPT-2 spells printable ones as themselves, and the others from U+0100 on."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    names = [chr(byte) if byte in shown else chr(next(others)) for byte in range(256)]
    return tokenizer_of(["<end>", "<pad>", "<bos>", *names], decoders.ByteLevel())


def bytes_of_sentencepiece():
    vocabulary = ["<end>", "<pad>", "<bos>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁a", "b"]
    return tokenizer_of(
        vocabulary, decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    )


def grown(tokenizer, tokens, **sampling):
    """The pieces that each token gives, and the whole text."""
    model = SimpleNamespace(config=SimpleNamespace(is_encoder_decoder=False), forward=lambda input_ids: None)
    fitted = fit_prompt(model, tokenizer, Prompt([BOS], "a"), None)
    growing = start_text(fitted, tokenizer, Sampling(**{"max_tokens": 999} | sampling))
    pieces = []
    for token in tokens:
        growing.add(token)
        pieces.append(growing.take())
        if growing.finished is not None:
            break
    return pieces, ended_text(fitted, growing)


def of(*words):
    return [3 + WORDS.index(word) for word in words]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "t5"])
@pytest.mark.parametrize(
    "chosen",
    [
        {"max_tokens": 30},
        {"max_tokens": 30, "temperature": 1.0, "top_p": 0.9, "top_k": 12, "repetition_penalty": 1.3},
        {"max_tokens": 40, "temperature": 1.0, "stop": ("stop", "ab")},
    ],
)
def test_the_pieces_join_to_the_text_of_generate(architecture, chosen):
    tokenizer = letters()
    shape = Model(architecture=architecture, max_positions=64, **SIZES)
    model = build_model(shape, vocab_size=tokenizer.vocab_size, end=END, pad=PAD, seed=3).eval()
    with torch.no_grad():  # with small random weights the model repeats its last token
        for name, weight in model.named_parameters():
            weight.mul_(8 if weight.dim() > 1 and not re.search("embed|head|wte|wpe|shared", name) else 1)
    asked = [Prompt([BOS, 3 + number, 9], f"prompt {number}", sample=number % 2) for number in range(6)]
    sampling, shown = Sampling(**chosen), ""
    for prompt, whole in zip(asked, generate(model, tokenizer, asked, sampling, seed=5, batch_size=4), strict=True):
        stream = TextStream(model, tokenizer, prompt, sampling, seed=5)
        pieces = list(stream)
        assert stream.generation == whole
        assert "".join(pieces) == whole.text
        assert len(pieces) == len(whole.tokens) + (whole.finished == "end")
        shown += whole.text
    assert shown


def test_a_stop_string_that_begins_in_one_token_is_never_shown():
    pieces, whole = grown(letters(), of("a", "st", "b", "st", "op", "c"), stop=("stop",))
    assert pieces == ["a", "", "stb", "", ""]
    assert (whole.text, whole.finished) == ("astb", "stop")


def test_the_beginning_of_a_stop_string_is_shown_where_the_text_ends():
    assert grown(letters(), [*of("a", "st"), END], stop=("stop",))[0] == ["a", "", "st"]
    assert grown(letters(), of("a", "st"), stop=("stop",), max_tokens=2)[0] == ["a", "st"]


def test_of_two_stop_strings_the_longer_beginning_is_held_back():
    pieces, whole = grown(letters(), of("a", "b", "c", "d", "b", "d"), stop=("abcx", "bd"))
    assert pieces == ["", "", "", "abcd", "", ""]
    assert (whole.text, whole.finished) == ("abcd", "stop")


def test_end_and_padding_give_no_text():
    assert grown(letters(), [*of("a"), PAD, *of("b"), END])[0] == ["a", "", "b", ""]


@pytest.mark.parametrize("text", ["é", "中文", "a中b", "\U0001f600!", "e\u0301"])
@pytest.mark.parametrize("make", [bytes_of_gpt2, bytes_of_sentencepiece])
def test_a_character_of_several_tokens_appears_once_it_is_whole(make, text):
    tokenizer = make()
    pieces, whole = grown(tokenizer, [*(3 + byte for byte in text.encode()), END])
    assert "".join(pieces) == whole.text == text
    assert not any("\ufffd" in piece for piece in pieces)
    if make is bytes_of_gpt2:
        assert [piece for piece in pieces if piece] == list(text)


def test_bytes_that_are_no_character_appear_where_the_text_ends():
    half = "中".encode()[:2]
    pieces, whole = grown(bytes_of_gpt2(), [3 + ord("a"), *(3 + byte for byte in half), END])
    assert pieces[0] == "a" and pieces[1:3] == ["", ""]
    assert "".join(pieces) == whole.text == "a" + half.decode(errors="replace")


def test_a_run_of_bytes_that_ends_in_half_a_character_takes_back_nothing():
    """SentencePiece then shows no character of the run, so none may have left."""
    tokenizer = bytes_of_sentencepiece()
    pieces, whole = grown(tokenizer, [3 + 256, *(3 + byte for byte in "中".encode() + b"\xe4"), END])
    assert pieces[0] == " a" and set(pieces[1:-1]) == {""}
    assert "".join(pieces) == whole.text == " a" + "\ufffd" * 4


def bytes_as(text):
    return [3 + byte for byte in text.encode()]


SPELT = {"gpt2": bytes_of_gpt2(), "sentencepiece": bytes_of_sentencepiece()}
FEW = st.sampled_from([BOS, PAD, 259, 260, *bytes_as("a\n\u00e9\u4e2d\U0001f600"), 3 + 0xFF, 3 + 0xC3])
MORE = [259, 260] * REST


@settings(max_examples=300, deadline=None)
@example("sentencepiece", [BOS], [*bytes_as("\u4e2d"), 3 + 0xFF], [])
@example("sentencepiece", [BOS], [*bytes_as("\U0001f600" * 3 + "\n")], ["\n"])
@example("sentencepiece", [BOS, *bytes_as("\u4e2d")[:2]], [*bytes_as("\u4e2d")[2:], 259], [])
@example("sentencepiece", [BOS], [*MORE, 259, BOS, 259], ["a a"])
@given(
    st.sampled_from(sorted(SPELT)),
    st.lists(FEW, max_size=20).map(lambda ids: [BOS, *ids]),
    st.lists(st.lists(FEW, max_size=12) | st.just(MORE), max_size=6).map(lambda lists: [*chain(*lists)]),
    st.lists(st.sampled_from(["\n", "a a", "\u4e2d", "\u00e9a", "\U0001f600\n", "bb"]), max_size=2),
)
def test_any_tokens_end_and_are_shown_as_their_whole_text_says(kind, prompt, ids, stops):
    tokenizer = SPELT[kind]
    if kind == "gpt2":  # which has no further tokens
        prompt, ids = ([3 + ord("b") if number > 258 else number for number in part] for part in (prompt, ids))
    growing, shown, begun = GrowingText(tokenizer, prompt, Ending(frozenset({END}), tuple(stops), 10**6)), "", []
    for count, token in enumerate([*ids, END]):
        text = decode_after(
            tokenizer, prompt, [number for number in [*ids, END][: count + 1] if number not in (END, PAD)]
        )
        growing.add(token)
        assert (growing.finished == "stop") == (token != END and any(stop in text for stop in stops))
        shown += growing.take()
        begun.append(shown)
        if growing.finished:
            break
    wanted = min((text.split(stop)[0] for stop in stops), key=len, default=text)
    assert shown == growing.text == wanted
    assert all(shown.startswith(piece) for piece in begun)
    if not ids[len(growing.tokens) :] and not stops and ids[-1:] == [260] and kind == "sentencepiece":
        assert begun[-2] == shown, "nothing is held back after a token that is no byte"


def test_a_long_text_is_given_as_it_is_decoded_as_a_whole():
    tokens = [token for number in range(5 * REST) for token in of(" x", WORDS[number % 5], WORDS[number % 11])]
    pieces, whole = grown(letters(), [*tokens, END])
    assert "".join(pieces) == whole.text
    assert all(pieces[:-1])


def test_the_cost_of_a_token_does_not_grow_with_the_text(monkeypatch):
    decoded = []
    plain = TextTokenizer.decode
    monkeypatch.setattr(TextTokenizer, "decode", lambda self, ids: decoded.append(len(ids)) or plain(self, ids))
    grown(letters(), of("a", " x") * 400)
    assert max(decoded) <= 3 * REST


def test_a_tokenizer_that_changes_its_mind_is_told():
    tokenizer = tokenizer_of(["<end>", "<pad>", "<bos>", "a", "b"], decoders.Fuse())
    texts = iter(["", "a", "", "ab", "", "xy", "", "xy"])

    class Fickle(TextTokenizer):
        def decode(self, ids):
            return next(texts, "xy")

    fickle = Fickle(**{name: getattr(tokenizer, name) for name in TextTokenizer.__dataclass_fields__})
    with pytest.raises(CheckFailed, match="other characters than its beginning"):
        grown(fickle, [3, 4, 3, END])


def test_a_prompt_is_cut_as_for_generate_and_too_many_tokens_are_refused():
    shape = Model(architecture="llama", max_positions=16, **SIZES)
    tokenizer = letters()
    model = build_model(shape, vocab_size=tokenizer.vocab_size, end=END, pad=PAD, seed=3).eval()
    prompt = Prompt([BOS, *of("a", "b", "c") * 9], "a")
    stream = TextStream(model, tokenizer, prompt, Sampling(4), seed=1)
    assert stream.cut_prompt
    (whole,) = generate(model, tokenizer, [prompt], Sampling(4), seed=1, batch_size=1)
    assert ("".join(stream), stream.generation) == (whole.text, whole)
    with pytest.raises(UserError, match="max_tokens 17 exceeds the 16 tokens"):
        TextStream(model, tokenizer, prompt, Sampling(17), seed=1)
