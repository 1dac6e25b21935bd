"""Canaries can be compared, and occur only where canaries.json lists them."""

from itertools import islice

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from codex_ml.cli.param_rules import Params
from codex_ml.core.errors import UserError
from codex_ml.documents.document import Document, write_documents
from codex_ml.pack.canaries import (
    ALPHABET,
    FRAMES,
    canary_secrets,
    domain_of,
    frame_of,
    plan_canaries,
    secret_text,
    with_canaries,
    without_secrets,
)
from codex_ml.pack.config import Canaries

from .byte_tokenizer import ByteTokenizer
from .packing import example

SETTINGS = Canaries(repetitions=(1, 4), each=3, controls=5)


def test_canaries_are_off_by_default():
    assert Params().pack.canaries.repetitions == ()


class Bpe:
    """Byte-level BPE with merges of letters, so that secrets have unequal numbers of tokens."""

    def __init__(self, size):
        text = " ".join(f"{a}{b}{c} = {a}{c}" for a in ALPHABET for b in "AEIOU27" for c in ALPHABET[::3])
        self.bpe = Tokenizer(models.BPE())
        self.bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.bpe.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        self.bpe.train_from_iterator([text, FRAMES["code"][0] * 20], trainer)

    def encode(self, text):
        return np.array(self.bpe.encode(text, add_special_tokens=False).ids, dtype=np.uint32)

    def decode(self, ids):
        return self.bpe.decode(np.asarray(ids).tolist(), skip_special_tokens=False)


@pytest.fixture(scope="module")
def bpe():
    return Bpe(700)


def made(tokenizer, settings=SETTINGS, *, domain="code", documents=10, seq_len=64):
    return plan_canaries(tokenizer, settings, domain=domain, documents=documents, seq_len=seq_len)


def test_secrets_are_frozen_and_have_fifty_bits():
    assert [secret_text(draw) for draw in range(3)] == ["RJLQOZ7DLP", "DMVMGTTLX7", "2FOOVSJPUH"]
    drawn = [secret_text(draw) for draw in range(2000)]
    assert len(set(drawn)) == 2000
    assert set("".join(drawn)) == set(ALPHABET)
    counts = np.array([sum(text[place] == symbol for text in drawn) for place in range(10) for symbol in ALPHABET])
    assert ((counts - 62.5) ** 2 / 62.5).sum() < 310 + 4 * np.sqrt(620)  # chi-square, 310 degrees of freedom


def test_all_secrets_have_the_same_number_of_tokens(bpe):
    assert len({len(bpe.encode(secret_text(draw))) for draw in range(100)}) > 2
    frame = frame_of(bpe, "code")
    drawn = list(islice(canary_secrets(bpe, frame), 300))
    assert {len(secret.ids) for secret in drawn} == {len(frame.before) + frame.secret_tokens + len(frame.after)}
    for secret in drawn:
        assert secret.ids[: len(frame.before)].tolist() == bpe.encode('API_KEY = "').tolist()
        assert secret.ids[len(secret.ids) - len(frame.after) :].tolist() == bpe.encode('"\n').tolist()
        assert bpe.decode(secret.ids) == f'API_KEY = "{secret.text}"\n'
    assert len({secret.ids.tobytes() for secret in drawn}) == 300


def test_more_secrets_can_be_drawn_from_next_draw_on(bpe):
    found = made(bpe)
    listing = found.listing(range(len(found.copies)))
    every = list(islice(canary_secrets(bpe, found.frame), 11 + 20))
    further = list(islice(canary_secrets(bpe, found.frame, first=listing["next_draw"]), 20))
    assert [secret.text for secret in further] == [secret.text for secret in every[11:]]
    assert [c["secret"] for c in (*listing["inserted"], *listing["controls"])] == [s.text for s in every[:11]]


def test_each_canary_is_inserted_as_often_as_asked_and_controls_never():
    found = made(ByteTokenizer())
    assert [count for _, count in found.inserted] == [1, 1, 1, 4, 4, 4]
    stream = [example([9, number]) for number in range(10)]
    merged = list(with_canaries(stream, found))
    assert [e for e in merged if not e.canary] == stream
    times = [sum(e.canary and e.ids is secret.ids for e in merged) for secret, _ in found.inserted]
    assert times == [1, 1, 1, 4, 4, 4]
    assert len(merged) == 10 + 15
    listing = found.listing([number for number, e in enumerate(merged) if e.canary])
    for entry in listing["inserted"]:
        assert len(entry["documents"]) == entry["repetitions"]
        assert all(merged[number].ids.tolist() == entry["ids"] for number in entry["documents"])
    text = "".join(ByteTokenizer().decode(e.ids) for e in merged if e.canary)
    assert all(control.text not in text for control in found.controls)
    assert len(found.controls) == 5


def test_positions_are_spread_and_a_pure_function():
    settings = Canaries(repetitions=(64,), each=8)
    copies = made(ByteTokenizer(), settings, documents=1000).copies
    assert copies == made(ByteTokenizer(), settings, documents=1000).copies
    places = np.array([place for place, _ in copies])
    assert (np.diff(places) >= 0).all()
    assert 0 <= places[0] < 20 and 980 < places[-1] <= 1000
    assert 440 < places.mean() < 560
    assert made(ByteTokenizer(), settings, documents=999).copies != copies


@pytest.mark.parametrize("kept", [0, 1, 4])
def test_copies_after_the_last_kept_document_come_at_the_end(kept):
    found = made(ByteTokenizer(), documents=10)
    merged = list(with_canaries([example([9])] * kept, found))
    assert (len(merged), sum(e.canary for e in merged)) == (15 + kept, 15)


@pytest.mark.parametrize(
    ("languages", "domain"), [(["python", "python", "text"], "code"), (["text", "python"], "text"), ([], "text")]
)
def test_the_frame_has_the_domain_of_most_documents(tmp_path, languages, domain):
    documents = [Document("s", "p", str(n), "", "MIT", language, text="x") for n, language in enumerate(languages)]
    write_documents(tmp_path / "train.parquet", documents)
    assert domain_of(tmp_path / "train.parquet") == domain
    text = ByteTokenizer().decode(made(ByteTokenizer(), domain=domain).inserted[0][0].ids)
    before, after = FRAMES[domain]
    assert text == f"{before}{secret_text(0)}{after}"


@pytest.mark.parametrize("which", ["inserted", "control"])
def test_a_document_that_holds_a_secret_is_refused(which):
    found = made(ByteTokenizer())
    secret = (found.inserted[3][0] if which == "inserted" else found.controls[4]).text
    clean = Document("s", "a.txt", "1", "", "MIT", "text", text=f"x{secret[:-1]}x")
    for form in ({"text": f"x{secret}x"}, {"prompt": "p", "completion": secret}):
        dirty = Document("s", "b.txt", "2", "", "MIT", "text", **form)
        seen = without_secrets([clean, dirty], found)
        assert next(seen) is clean
        message = (
            r"^train: the document b\.txt of s holds a secret that pack\.canaries invents; remove it from the corpus, or "
            r"set pack\.canaries\.repetitions to \[\]$"
        )
        with pytest.raises(UserError, match=message) as refused:
            next(seen)
        assert secret not in str(refused.value)


class Words(ByteTokenizer):
    """A tokenizer that encodes every word of a secret as the same token."""

    def encode(self, text):
        return np.array([5 if len(word) < 9 else 1 for word in text.split()], dtype=np.uint32)

    def decode(self, ids):
        return " ".join("word" if token == 5 else "[UNK]" for token in ids)


class Uneven(ByteTokenizer):
    """A tokenizer with a different token count for each secret: a symbol becomes as many tokens as its alphabet index."""

    def encode(self, text):
        wide = "".join(c if c not in ALPHABET else c + "\0" * ALPHABET.index(c) for c in text)
        return super().encode(wide)

    def decode(self, ids):
        return super().decode(ids).replace("\0", "")


@pytest.mark.parametrize(
    ("tokenizer", "numbers"),
    [(Words(), "keeps 0 readable .* at most 0 have"), (Uneven(), "keeps 512 readable .* at most 1[0-9] have")],
)
def test_a_tokenizer_without_comparable_canaries_is_refused(tokenizer, numbers):
    with pytest.raises(UserError, match=rf"^pack\.canaries: of 512 invented secrets the tokenizer {numbers} the same"):
        made(tokenizer)


def test_a_canary_longer_than_a_row_is_refused():
    message = r"^pack\.canaries: a canary has 24 tokens, but pack\.seq_len is 23; raise pack\.seq_len, or set "
    with pytest.raises(UserError, match=message):
        made(ByteTokenizer(), seq_len=23)
    made(ByteTokenizer(), seq_len=24)
