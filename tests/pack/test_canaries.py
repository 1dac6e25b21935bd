"""Canaries can be compared, and occur only where canaries.json lists them."""

import re
from itertools import islice

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from codex_ml.cli.param_rules import Params
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.documents.document import Document, write_documents
from codex_ml.modeling.canary_secrets import (
    ALPHABET,
    canary_secrets,
    count_in_stream,
    random_frame,
    secret_text,
    text_around,
    unlikely_frame,
)
from codex_ml.pack.canaries import (
    check_counts,
    domain_of,
    frame_for,
    plan_canaries,
    whether_to_plant,
    with_canaries,
    without_secrets,
)
from codex_ml.pack.config import Canaries

from .byte_tokenizer import ByteTokenizer
from .packing import example

SETTINGS = Canaries(repetitions=(1, 4), each=(3, 3), controls=5)
LOCK = "# the sample\nalpha==1.0 --hash=sha256:00\nbenchmark tests==2.0 --hash=sha256:11 --file=a.jsonl\n"


@pytest.mark.parametrize(
    ("plant", "sources", "planted", "why"),
    [
        ("sample", ["alpha==1.0", "alpha==1.0"], True, "all train documents are of the sample"),
        ("sample", ["alpha==1.0", "my tickets"], False, "my tickets is not of .*sample.lock$"),
        ("sample", ["alpha==2.0"], False, "alpha==2.0 is not of"),
        ("sample", ["tests==2.0"], False, "tests==2.0 is not of"),  # nothing of it may be trained on
        ("always", ["my tickets"], True, "^pack.canaries.plant is always$"),
        ("never", ["alpha==1.0"], False, "^pack.canaries.plant is never$"),
    ],
)
def test_one_document_of_a_user_keeps_canaries_out(tmp_path, plant, sources, planted, why):
    documents = [Document(source, "p", str(n), "", "MIT", "text", text="x") for n, source in enumerate(sources)]
    write_documents(tmp_path / "train.parquet", documents)
    (tmp_path / "sample.lock").write_text(LOCK)
    decided, reason = whether_to_plant(Canaries(plant=plant), tmp_path / "train.parquet", tmp_path / "sample.lock")
    assert decided is planted
    assert re.search(why, reason)


def test_canaries_are_for_the_sample_by_default():
    assert Params().pack.canaries.plant == "sample"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"each": (8, 8)},
            r"pack\.canaries\.each has 2 entries and pack\.canaries\.repetitions has 3; give one number of",
        ),
        ({"repetitions": (4, 4, 1)}, r"pack\.canaries\.repetitions names a number twice; raise its entry of each"),
        ({"repetitions": (), "each": ()}, "at least 1 item"),
    ],
)
def test_each_number_of_repetitions_has_its_number_of_canaries(keys, message):
    with pytest.raises(ValueError, match=message):
        Canaries(**keys)


class Bpe:
    """Byte-level BPE with merges of letters, so that secrets have unequal numbers of tokens."""

    def __init__(self, size):
        text = " ".join(f"{a}{b}{c} = {a}{c}" for a in ALPHABET for b in "AEIOU27" for c in ALPHABET[::3])
        self.bpe = Tokenizer(models.BPE())
        self.bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.bpe.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        self.bpe.train_from_iterator([text, "CANARY_ = " * 20], trainer)

    def encode(self, text):
        return np.array(self.bpe.encode(text, add_special_tokens=False).ids, dtype=np.uint32)

    def decode(self, ids):
        return self.bpe.decode(np.asarray(ids).tolist(), skip_special_tokens=False)


@pytest.fixture(scope="module")
def bpe():
    return Bpe(700)


def made(tokenizer, settings=SETTINGS, *, domain="code", documents=10, seq_len=64):
    frame = frame_for(settings, tokenizer, domain, [])
    return plan_canaries(tokenizer, settings, frame, documents=documents, seq_len=seq_len)


def test_secrets_are_frozen_and_have_fifty_bits():
    assert [secret_text(draw) for draw in range(3)] == ["RJLQOZ7DLP", "DMVMGTTLX7", "2FOOVSJPUH"]
    drawn = [secret_text(draw) for draw in range(2000)]
    assert len(set(drawn)) == 2000
    assert set("".join(drawn)) == set(ALPHABET)
    counts = np.array([sum(text[place] == symbol for text in drawn) for place in range(10) for symbol in ALPHABET])
    assert ((counts - 62.5) ** 2 / 62.5).sum() < 310 + 4 * np.sqrt(620)  # chi-square, 310 degrees of freedom


def test_all_secrets_have_the_same_number_of_tokens(bpe):
    assert len({len(bpe.encode(secret_text(draw))) for draw in range(100)}) > 2
    frame = random_frame(bpe, "code")
    drawn = list(islice(canary_secrets(bpe, frame), 300))
    assert len({len(secret.ids) for secret in drawn}) > 2  # their names differ in tokens
    for secret in drawn:
        before, after = text_around(secret.draw, "code")
        assert secret.begin == len(bpe.encode(before))
        assert len(secret.ids) == secret.begin + frame.secret_tokens + len(bpe.encode(after))
        assert bpe.decode(secret.ids[secret.begin : secret.begin + frame.secret_tokens]) == secret.text
        assert bpe.decode(secret.ids) == f"{before}{secret.text}{after}"
    assert len({tuple(secret.ids) for secret in drawn}) == 300


def test_each_canary_has_a_name_of_its_own():
    """Greedy decoding after one name could give one secret only, so the others would never count as extracted."""
    assert [text_around(draw, "code")[0] for draw in range(2)] == ['CANARY_NDDRTI = "', 'CANARY_EQVXQC = "']
    names = {text_around(draw, "text")[0] for draw in range(2000)}
    assert len(names) == 2000
    assert all(re.fullmatch("The access code of [A-Z2-7]{6} is ", name) for name in names)


def test_more_secrets_can_be_drawn_from_next_draw_on(bpe):
    found = made(bpe)
    listing = found.listing(range(len(found.copies)))
    every = list(islice(canary_secrets(bpe, found.frame), 11 + 20))
    further = list(islice(canary_secrets(bpe, found.frame, first=listing.next_draw), 20))
    assert [secret.text for secret in further] == [secret.text for secret in every[11:]]
    assert [c.text for c in (*listing.planted, *listing.controls)] == [s.text for s in every[:11]]


def test_each_canary_is_inserted_as_often_as_asked_and_controls_never():
    found = made(ByteTokenizer())
    assert [count for _, count in found.inserted] == [1, 1, 1, 4, 4, 4]
    stream = [example([9, number]) for number in range(10)]
    merged = list(with_canaries(stream, found))
    assert [e for e in merged if not e.canary] == stream
    times = [sum(e.canary and e.ids.tolist() == secret.ids for e in merged) for secret, _ in found.inserted]
    assert times == [1, 1, 1, 4, 4, 4]
    assert len(merged) == 10 + 15
    listing = found.listing([number for number, e in enumerate(merged) if e.canary])
    assert listing.repetitions == [1, 1, 1, 4, 4, 4]
    for canary, count in zip(listing.planted, listing.repetitions, strict=True):
        assert len(canary.documents) == count
        assert all(merged[number].ids.tolist() == canary.ids for number in canary.documents)
    text = "".join(ByteTokenizer().decode(e.ids) for e in merged if e.canary)
    assert all(control.text not in text for control in found.controls)
    assert len(found.controls) == 5


def test_positions_are_spread_and_a_pure_function():
    settings = Canaries(repetitions=(64,), each=(8,))
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
    before, after = text_around(0, domain)
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
            r"set pack\.canaries\.plant to never$"
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
    message = r"^pack\.canaries: a canary has up to 30 tokens, but pack\.seq_len is 29; raise pack\.seq_len, or set "
    with pytest.raises(UserError, match=message):
        made(ByteTokenizer(), seq_len=29)
    made(ByteTokenizer(), seq_len=30)


def falling_counts(tokenizer):
    """A corpus that uses the 94 readable characters less and less: chr(33) 93 times, chr(126) never."""
    return ["".join(chr(33 + number) * (93 - number) for number in range(94))]


def test_unlikely_secrets_are_made_of_the_tokens_that_the_corpus_uses_least():
    tokenizer = ByteTokenizer()
    frame = frame_for(Canaries(design="unlikely"), tokenizer, "text", falling_counts(tokenizer))
    assert tokenizer.decode(frame.pool) == "".join(map(chr, range(95, 127)))
    assert (frame.design, frame.secret_tokens) == ("unlikely", 10)
    symbols = str.maketrans(ALPHABET, "".join(map(chr, range(95, 127))))
    drawn = list(islice(canary_secrets(tokenizer, frame), 50))
    assert [secret.text for secret in drawn] == [secret_text(secret.draw).translate(symbols) for secret in drawn]
    whole = [text_around(secret.draw, "text")[0] + secret.text + ".\n" for secret in drawn]
    assert [tokenizer.decode(secret.ids) for secret in drawn] == whole


def test_tokens_that_are_used_equally_often_are_chosen_by_their_id():
    frame = unlikely_frame(ByteTokenizer(), "code", np.zeros(258, dtype=np.int64))
    assert ByteTokenizer().decode(frame.pool) == "".join(map(chr, range(33, 65)))  # no blank, no control character


def test_unlikely_secrets_need_readable_tokens():
    tokenizer = ByteTokenizer()
    tokenizer.decode = lambda ids: "x" if next(iter(ids)) % 9 == 4 else "\N{REPLACEMENT CHARACTER}"
    message = r"^pack\.canaries\.design unlikely needs 32 readable tokens, and the tokenizer has 29; use pack\.canaries"
    with pytest.raises(UserError, match=message):
        unlikely_frame(tokenizer, "code", np.zeros(258, dtype=np.int64))


@pytest.mark.parametrize("chunk", [1, 7, 1 << 24])
def test_copies_in_a_stream_are_counted_across_its_chunks(chunk, monkeypatch):
    monkeypatch.setattr("codex_ml.modeling.canary_secrets.CHUNK", chunk)
    found = made(ByteTokenizer())
    secrets = [secret for secret, _ in found.inserted]
    stream = [0]
    for number, times in enumerate((1, 0, 3, 2, 0, 1)):
        stream += [*secrets[number].ids, 0, *secrets[number].ids[:-1], 0, *secrets[number].ids[1:]] * times
    assert count_in_stream(np.array(stream, dtype="<u2"), secrets) == [1, 0, 3, 2, 0, 1]
    assert count_in_stream(np.array([0, 5], dtype="<u2"), secrets) == [0] * 6


def planned_stream():
    """The listing of a plan, and its documents as the stream holds them."""
    found = made(ByteTokenizer())
    merged = list(with_canaries([example([9, number]) for number in range(10)], found))
    return found.listing([number for number, e in enumerate(merged) if e.canary]), [e.ids.tolist() for e in merged]


def without_repeats(documents, listing):
    return [ids for number, ids in enumerate(documents) if ids not in documents[:number]]


def without_a_canary(documents, listing):
    return [[*ids[:20], 5, *ids[21:]] if ids == listing.planted[1].ids else ids for ids in documents]


def with_a_control(documents, listing):
    return [*documents, listing.controls[2].ids]


@pytest.mark.parametrize(
    ("mistake", "place", "counts"),
    [
        (without_repeats, 3, "1 times; 4 were"),
        (without_a_canary, 1, "0 times; 1 were"),
        (with_a_control, 8, "1 times; 0 were"),
    ],
)
def test_a_stream_with_other_copies_is_refused(mistake, place, counts):
    """Deduplication after planting removes repeats, and redaction removes secrets: both would look like forgetting."""
    listing, documents = planned_stream()
    check_counts(np.concatenate([[0, *ids] for ids in documents]), listing)
    canary = [*listing.planted, *listing.controls][place]
    message = f"^the train rows hold the canary of draw {canary.draw} {counts} expected$"
    with pytest.raises(CheckFailed, match=message):
        check_counts(np.concatenate([[0, *ids] for ids in mistake(documents, listing)]), listing)
