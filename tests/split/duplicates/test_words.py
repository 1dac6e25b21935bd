"""Near-copies are found in every script, also in scripts without spaces between words; unrelated texts are kept."""

import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from codex_ml.split.config import Split
from codex_ml.split.duplicates.shingles import shingles_of
from codex_ml.split.duplicates.words import cut, spans

from ..brute_force import BruteForce
from ..dealing import Dealer, Doc, naive_pairs, plain_words

# Letters that are frequent in each script, from its Unicode block; real text is drawn from as few.
LETTERS = {
    "Chinese": [chr(c) for c in range(0x4E00, 0x4E00 + 800)],
    "Japanese": [chr(c) for c in (*range(0x3042, 0x3094), *range(0x30A2, 0x30F4), *range(0x65E5, 0x6700))],
    "Thai": [*"กขคงจชซญดตถทธนบปผพฟภมยรลวศสหอเแโใไะา", "ก็", "กั", "นิ", "ที", "มี", "ดู", "ได้", "ม่", "ว่"],
    "Lao": [*"ກຂຄງຈສຊຍດຕຖທນບປຜຝພຟມຢຣລວຫອເແໂໃໄະາ", "ກິ", "ນີ", "ມື", "ດູ"],
    "Khmer": ["ក", "ខ", "គ", "ង", "ច", "ជ", "ដ", "ត", "ន", "ប", "ព", "ម", "យ", "រ", "ល", "វ", "ស", "ហ", "អ", "កា", "តិ", "ពី", "មួ", "ស្រ"],
    "Myanmar": ["က", "ခ", "ဂ", "င", "စ", "ဆ", "ည", "တ", "ထ", "န", "ပ", "ဖ", "မ", "ယ", "ရ", "လ", "ဝ", "သ", "ဟ", "အ", "မြ", "ကို", "တွေ"],
    "Bopomofo": [chr(c) for c in range(0x3105, 0x312A)],
    "Yi": [chr(c) for c in range(0xA000, 0xA200)],
    "Javanese": [chr(c) for c in range(0xA984, 0xA9B3)],
}  # fmt: skip
SCRIPTS = list(LETTERS)


def write(dice, script, length=200):
    return "".join(dice.choices(LETTERS[script], k=length))


def edited(dice, script, text):
    """Another letter in one place."""
    place = dice.randrange(1, len(text))
    return text[:place] + dice.choice([c for c in LETTERS[script] if c[0] != text[place]]) + text[place + 1 :]


@pytest.mark.parametrize("script", SCRIPTS)
def test_near_copies_of_two_hundred_letters_stay_in_one_split(tmp_path, script):
    """Forty pairs; in each, one letter is replaced, a letter is added at the end, or a space in the middle."""
    dice = random.Random(script)
    docs = [Doc(f"filler {i} of some words that nobody else has {i}", path=f"filler-{i}") for i in range(12)]
    for number in range(40):
        text = write(dice, script)
        copies = edited(dice, script, text), text + dice.choice(LETTERS[script]), f"{text[:99]} {text[99:]}"
        copy = copies[number % 3]
        docs += [Doc(text, path=f"{number}"), Doc(copy, path=f"{number}-copy")]
    for ledger in (None, tmp_path / "ledger"):
        if ledger:
            ledger.mkdir()
            (ledger / "all.txt").touch()
        result = Dealer(tmp_path).deal(docs, Split(val=0.3, test=0.3, salt="pepper"), ledger)
        pairs = [result.reasons[i : i + 2] for i in range(12, len(docs), 2)]
        assert sorted(map(sorted, pairs)) == [["", "near-duplicate"]] * 40


@pytest.mark.parametrize("script", SCRIPTS)
def test_unrelated_texts_of_one_script_are_kept(tmp_path, script):
    dice = random.Random(script)
    texts = [write(dice, script, dice.randint(5, 2000)) for _ in range(60)]
    assert naive_pairs(texts, 0.3) == {}
    brute = BruteForce([set(values.tolist()) for values in shingles_of(texts)])
    assert [near.tolist() for near in brute.neighbours(0.3)] == [[]] * 60


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("今日はPython 3.13を使う", ["今", "日", "は", "Python", "3", "13", "を", "使", "う"]),
        ("ภาษาไทยabc", ["ภ", "า", "ษ", "า", "ไ", "ท", "ย", "abc"]),
        ("ที่นี่", ["ที่", "นี่"]),  # a letter keeps its marks
        ("ガか\u3099", ["ガ", "か\u3099"]),
        ("한국어 문장", ["한국어", "문장"]),  # Korean has blanks
        ("བོད་ཡིག", None),  # Tibetan: a sign stands between syllables
        ("x_1漢_y", ["x_1", "漢", "_y"]),
        ("Größe—naïve", ["Größe", "naïve"]),
        ("😀漢😀a", ["漢", "a"]),
        ("\u200b漢\u200b字\u3000。", ["漢", "字"]),
    ],
)
def test_how_a_text_is_cut_into_words(text, words):
    found = [text[start:end] for start, end in spans(text)]
    assert found == plain_words(text)
    assert found == (words if words is not None else found)
    assert [word for part in cut(text).split() for word in part.split(".")] == [w for w in found if w]


def test_plain_ascii_is_not_touched():
    text = "def f(a, b):\n\treturn a_1 + b\0"
    assert cut(text) is text


def test_words_do_not_depend_on_the_unicode_version_of_python():
    """Inside the blocks of the table, a letter that this Python does not know yet is cut like a known one."""
    unknown = [chr(c) for c in range(0x31350, 0x32000, 97) if not unicodedata.name(chr(c), "")]
    assert unknown
    assert len(spans("".join(unknown))) == len(unknown)
    assert len(shingles_of(["".join(unknown)])[0]) == len(unknown) - 4


def test_many_marks_are_one_word(tmp_path: Path):
    text = "ก" + "\u0e48" * 100_000
    assert spans(text) == [(0, 100_001)]
    assert shingles_of([text * 5])[0].dtype == np.uint64
