"""The test set stays clean: no duplicate straddles, order and additions move nothing, every drop has its reason."""

import hashlib
import random
import re
from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest

from codex_ml.config import Split
from codex_ml.data import split as module
from codex_ml.data.documents import Document
from codex_ml.data.split import PARTS, Leakage, Verdict, content_id, entry, part_of, position, split
from codex_ml.errors import UserError

PARAMS = Split(val=0.15, test=0.15, licences=("MIT", "ISC"))


def document(path, text, licence="MIT"):
    return Document("s", path, licence, "python", hashlib.sha256(text.encode()).hexdigest(), text)


def words(dice, count):
    return [f"v{dice.randrange(400)}" for _ in range(count)]


@pytest.fixture(scope="module")
def corpus():
    """120 texts, 60 near-duplicates of them, 20 exact ones, 10 short ones."""
    dice = random.Random(11)
    documents = []
    for number in range(120):
        text = words(dice, 60)
        documents.append(document(f"{number}", " ".join(text)))
        if number % 2:
            near = text[: -dice.randint(1, 9)] + words(dice, dice.randint(1, 6))
            documents.append(document(f"{number}-near", " ".join(near)))
        if number % 6 == 0:
            documents.append(document(f"{number}-copy", " ".join(text) + " \r\n"))
    return documents + [document(f"short-{i}", f"just {i} words") for i in range(10)]


def similarity(a, b):
    a, b = set(a.shingles.tolist()), set(b.shingles.tolist())
    return len(a & b) / len(a | b) if a and b else 0.0


def test_no_pair_across_the_splits_is_a_near_duplicate_by_brute_force(corpus):
    entries = [entry(d) for d in corpus]
    verdicts, leakage = split(entries, PARAMS)
    kept = [e for e in entries if verdicts[e.id].part]
    assert {verdicts[e.id].part for e in kept} == set(PARTS)
    close = [(a.path, b.path) for a, b in combinations(kept, 2) if similarity(a, b) >= PARAMS.near_duplicate]
    assert close == []
    assert leakage.near_cross == 0
    assert leakage.random_split_leak > 0.3  # the control: the same texts do leak when they are dealt at random


def test_every_document_has_one_verdict_and_every_drop_names_what_stands_for_it(corpus):
    entries = {d.id: entry(d) for d in corpus}
    verdicts, _ = split(entries.values(), PARAMS)
    assert verdicts.keys() == entries.keys()
    for identity, verdict in verdicts.items():
        if verdict.part:
            assert (verdict.reason, verdict.kept) == ("", "")
            assert verdict.part == part_of(entries[identity].content_id, PARAMS)
        elif verdict.reason == "exact duplicate":
            assert entries[verdict.kept].content_id == entries[identity].content_id
        else:
            assert verdict.reason == "near-duplicate"
            assert verdicts[verdict.kept].part
    assert Counter(v.reason for v in verdicts.values())["exact duplicate"] == 20


def test_the_order_of_documents_changes_nothing(corpus):
    entries = [entry(d) for d in corpus]
    expected = split(entries, PARAMS)
    for seed in range(3):
        random.Random(seed).shuffle(entries)
        assert split(entries, PARAMS) == expected


def test_names_of_files_and_sources_change_no_part(corpus):
    before, _ = split(map(entry, corpus), PARAMS)
    renamed = [replace(d, source="other", path=f"x/{d.path}") for d in corpus]
    after, _ = split(map(entry, renamed), PARAMS)

    def texts(documents, verdicts):
        return {(content_id(d.text), verdicts[d.id].part) for d in documents if verdicts[d.id].part}

    assert texts(corpus, before) == texts(renamed, after)


def test_adding_documents_moves_no_old_one_to_another_part(corpus):
    few, _ = split(map(entry, corpus[:100]), PARAMS)
    all_, _ = split(map(entry, corpus), PARAMS)
    moved = [i for i, v in few.items() if v.part and all_[i].part and all_[i].part != v.part]
    assert moved == []
    assert sum(bool(v.part) for v in few.values()) > 40


def test_two_documents_of_one_id_are_refused(corpus):
    """The stage writes what `verdicts[id]` says; ingest lists a document that two sources share once."""
    with pytest.raises(UserError, match="stands twice in the corpus"):
        split(map(entry, [*corpus, *corpus[:1]]), PARAMS)


def test_what_the_first_search_misses_the_second_one_evicts(corpus, monkeypatch):
    real = module.near_pairs

    def blind(sets, *, threshold, seed):
        return [] if seed == module.DEDUP_SEED else real(sets, threshold=threshold, seed=seed)

    monkeypatch.setattr(module, "near_pairs", blind)
    entries = {d.id: entry(d) for d in corpus}
    verdicts, leakage = split(entries.values(), PARAMS)
    evicted = {i: v for i, v in verdicts.items() if v.reason == "near-duplicate of held-out"}
    assert len(evicted) == leakage.evicted > 5
    for identity, verdict in evicted.items():
        own, other = part_of(entries[identity].content_id, PARAMS), part_of(entries[verdict.kept].content_id, PARAMS)
        assert PARTS.index(own) < PARTS.index(other)  # train makes way for val and test, val for test
        assert similarity(entries[identity], entries[verdict.kept]) >= 0.7
    held = [e for e in entries.values() if verdicts[e.id].part]
    assert not [
        1 for a, b in combinations(held, 2) if verdicts[a.id].part != verdicts[b.id].part and similarity(a, b) >= 0.7
    ]
    assert leakage.near_cross == 0


@pytest.mark.parametrize(
    ("licence", "policy", "verdict"),
    [
        ("MIT", "drop", None),
        ("mit OR GPL-3.0-only", "drop", None),
        ("GPL-3.0-only", "drop", "licence not allowed"),
        ("GPL-3.0-only", "keep", "licence not allowed"),
        ("MIT AND GPL-3.0-only", "keep", "licence not allowed"),
        ("unknown", "drop", "licence unknown"),
        ("see LICENSE", "drop", "licence unknown"),
        ("unknown", "keep", None),
        ("NOASSERTION", "keep", None),
    ],
)
def test_a_licence_decides_before_anything_else(corpus, licence, policy, verdict):
    one = document("one", "only here", licence)
    params = PARAMS.model_copy(update={"unknown_licence": policy})
    found = split(map(entry, [*corpus, one]), params)[0][one.id]
    assert found == (Verdict(None, verdict) if verdict else Verdict(part_of(content_id("only here"), params)))


def test_a_refused_document_never_stands_for_an_allowed_one(corpus):
    pair = [
        document("gpl", "the very same text of six words", "GPL-3.0-only"),
        document("mit", "the very same text of six words"),
    ]
    verdicts, _ = split(map(entry, [*corpus, *pair]), PARAMS)
    assert verdicts[pair[1].id].part


@pytest.mark.parametrize(
    ("texts", "part", "left"),
    [([], "train", "0 of 0"), (["a"] * 5, "train", "1 of 5"), (["b"], "val", "1 of 1"), (["b", "c"], "val", "2 of 2")],
)
def test_an_empty_split_is_told_with_advice(texts, part, left):
    with pytest.raises(UserError) as error:
        split((entry(document(str(i), text)) for i, text in enumerate(texts)), PARAMS)
    advice = r"add documents, raise split\.val and split\.test, or change split\.salt or split\.licences"
    assert re.fullmatch(
        rf"the {part} split is empty \({left} documents passed licences and duplicates\); {advice}", str(error.value)
    )


def test_content_is_equal_over_line_ends_and_trailing_white_space_only():
    one = content_id("a\n  b\nc")
    assert one == content_id("a\r\n  b\r\nc") == content_id("a \n  b\t\nc\n\n") == content_id("a\n  b\nc \t")
    different = [
        "A\n  b\nc",
        "a\n b\nc",
        "a\n\n  b\nc",
        " a\n  b\nc",
        "a\r  b\nc",
        "a\n  b\nc\u00a0",
        "a\n  b\nc\u0301",
    ]
    assert one not in {content_id(text) for text in different}
    assert one == hashlib.sha256(b"a\n  b\nc").hexdigest()


def test_the_position_of_a_content_is_frozen_and_even():
    assert position("key", "codex-ml") == 0.4233907869750993
    assert position("key", "other") == 0.21447554886004414
    assert position("", "ü" * 100) == 0.3498822013069026
    places = [position(str(i), "codex-ml") for i in range(10_000)]
    assert all(0 <= place < 1 for place in places)
    tenths = Counter(int(place * 10) for place in places)
    # 0.999 quantile of chi-square with 9 degrees of freedom (NIST handbook 1.3.6.7.4)
    assert sum((tenths[i] - 1000) ** 2 / 1000 for i in range(10)) < 27.877


def test_parts_are_dealt_by_their_shares():
    counts = Counter(part_of(str(i), Split(val=0.2, test=0.1)) for i in range(10_000))
    assert counts == Counter({part: {"train": 6954, "val": 1992, "test": 1054}[part] for part in PARTS})


def test_a_corpus_without_duplicates_would_not_have_leaked():
    dice = random.Random(2)
    unique = [document(str(i), " ".join(words(dice, 40))) for i in range(60)]
    assert split(map(entry, unique), PARAMS)[1] == Leakage(evicted=0, near_cross=0, random_split_leak=0.0)
    copies = [replace(d, path=f"{d.path}-{i}") for d in unique for i in range(20)]
    assert split(map(entry, copies), PARAMS)[1].random_split_leak == 1.0


CODE = """
import hashlib, random
from codex_ml.config import Split
from codex_ml.data.documents import Document
from codex_ml.data.split import entry, split
dice = random.Random(1)
texts = [" ".join(f"v{dice.randrange(300)}" for _ in range(30)) for _ in range(80)]
texts += [text[:-6] for text in texts[:40]] + texts[:10]
verdicts, leakage = split((entry(Document("s", str(i), "MIT OR ISC", "", "", t)) for i, t in enumerate(texts)), Split(val=0.2, test=0.2))
print(hashlib.sha256(repr((list(verdicts.items()), leakage)).encode()).hexdigest())
"""


def test_the_hash_seed_of_the_process_changes_nothing(run_python):
    runs = [run_python("-c", CODE, env={"PYTHONHASHSEED": seed}) for seed in ("0", "7")]
    assert [r.returncode for r in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
