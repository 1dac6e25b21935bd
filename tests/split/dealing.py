"""Texts with near-duplicates, and the promises of dealing computed the slow way."""

from __future__ import annotations

import hashlib
import random
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from codex_ml.documents.document import canonical
from codex_ml.split.candidates import DROPPED, PARTS, REASONS, DocumentKeys
from codex_ml.split.config import Split
from codex_ml.split.crew import Crew
from codex_ml.split.deal import deal, new_lines
from codex_ml.split.duplicates.shingle_sets import ShingleSets, block_of
from codex_ml.split.duplicates.shingles import shingles_of
from codex_ml.split.ledger.answers import RANKS, Ledger
from codex_ml.split.ledger.edits import accept_new_lines, write_folder
from codex_ml.split.ledger.folder import read_ledger, write_new_lines
from codex_ml.split.ledger.line_format import Columns, Lines, lines_of, salt_mark
from codex_ml.split.shares import position

WORDS = [f"w{i}" for i in range(400)]


# Names of characters in scripts that are written without blanks, as the Unicode standard begins them.
UNSPACED = (
    "CJK UNIFIED", "CJK COMPATIBILITY IDEOGRAPH", "IDEOGRAPHIC ITERATION", "IDEOGRAPHIC CLOSING", "IDEOGRAPHIC NUMBER",
    "HANGZHOU", "VERTICAL IDEOGRAPHIC", "VERTICAL KANA", "MASU MARK", "HIRAGANA", "KATAKANA", "HENTAIGANA", "BOPOMOFO",
    "HALFWIDTH KATAKANA", "YI SYLLABLE", "THAI", "LAO", "MYANMAR", "KHMER", "TAI LE", "NEW TAI LUE", "TAI THAM",
    "TAI VIET", "BALINESE", "JAVANESE",
)  # fmt: skip
JAPANESE_MARKS = ("IDEOGRAPHIC", "HANGUL", "COMBINING KATAKANA")
NEWER = "\U0001b132\U0001b155"  # letters that Python 3.12 knows and 3.11 does not; the same holds for the mark U+0ECE


def plain_words(text: str) -> list[str]:
    """The words of a text, character by character. A letter of an unspaced script with its marks is a word."""
    words, whole = [], True  # whole: the last word takes no more letters
    for character in text:
        name = unicodedata.name(character, "")
        always = 0x20000 <= ord(character) <= 0x3FFFF or character in NEWER  # ideographs, also those of the future
        unspaced = always or (name.startswith(UNSPACED) and character.isalnum())
        mark = unicodedata.category(character) in ("Mn", "Mc") and name.startswith((*UNSPACED, *JAPANESE_MARKS))
        mark = mark or character == "\u0ece"
        if mark:
            if words and whole is not None:
                words[-1] += character
            else:
                words.append(character)
                whole = False
        elif unspaced:
            words.append(character)
            whole = True
        elif character.isalnum() or character == "_":
            if words and whole is False:
                words[-1] += character
            else:
                words.append(character)
            whole = False
        else:
            whole = None  # nothing goes on
    return words


def naive_shingles(text: str) -> set[str]:
    words = plain_words(text.lower())
    return {" ".join(words[i : i + 5]) for i in range(len(words) - 4)}


def naive_pairs(texts: Sequence[str], least: float) -> dict[tuple[int, int], float]:
    """All pairs (earlier, later) whose Jaccard similarity is at least this."""
    sets = [naive_shingles(text) for text in texts]
    holders: dict[str, list[int]] = {}
    common: dict[tuple[int, int], int] = {}
    for later, values in enumerate(sets):
        for value in values:
            for earlier in holders.setdefault(value, []):
                common[earlier, later] = common.get((earlier, later), 0) + 1
            holders[value].append(later)
    shares = {(a, b): n / (len(sets[a]) + len(sets[b]) - n) for (a, b), n in common.items()}
    return {pair: share for pair, share in shares.items() if share >= least}


def stored(folder: Path, texts: Sequence[str], *, block: int = 1 << 20, bits: int = 16) -> ShingleSets:
    """The shingle sets of some texts, as `split` stores them."""
    result, sets = ShingleSets(folder, bits=bits), shingles_of(texts)
    for start in range(0, len(texts), block):
        result.add(block_of(sets[start : start + block], bits))
    result.seal()
    return result


def text(dice: random.Random, length: int) -> str:
    return " ".join(dice.choices(WORDS, k=length))


def near(dice: random.Random, original: str, changes: int) -> str:
    words = original.split()
    for _ in range(changes):
        words[dice.randrange(len(words))] = dice.choice(WORDS)
    return " ".join(words)


def variant(base: int, changed: int, copy: str = "") -> str:
    """Neighbours resemble each other (0.8 and more), the ends of a row of five do not (0.63 and less)."""
    words = [f"b{base}x{i}" for i in range(40)]
    return " ".join(words[: 40 - changed] + [f"c{changed}x{i}" for i in range(changed)]) + copy


class Doc(NamedTuple):
    """A document as the split stage sees it."""

    text: str
    group: str = ""
    path: str = ""
    stratum: str = ""

    @property
    def content(self) -> bytes:
        return hashlib.sha256(canonical(self.text).encode()).digest()

    @property
    def unit(self) -> bytes:
        return b"group\0" + self.group.encode() if self.group else b"content\0" + self.content[:16]


def candidates(docs: Sequence[Doc], salt: str) -> DocumentKeys:
    """The same numbers as `screen` makes, one document at a time."""
    strata = sorted({d.stratum for d in docs})

    def u64(values: Any) -> Any:
        return np.array(list(values), dtype=np.uint64)

    return DocumentKeys(
        high=u64(int.from_bytes(d.content[:8], "big") for d in docs),
        low=u64(int.from_bytes(d.content[8:16], "big") for d in docs),
        place=u64(int.from_bytes(hashlib.blake2b(d.path.encode(), digest_size=8).digest(), "big") for d in docs),
        unit=u64(position(d.unit, salt) for d in docs),
        grouped=np.array([bool(d.group) for d in docs], dtype=bool),
        stratum=np.array([strata.index(d.stratum) for d in docs], dtype=np.int32),
    )


TEXTS = st.builds(variant, st.integers(0, 5), st.sampled_from([0, 2, 4, 6, 8]), st.sampled_from(["", " \r\n"]))
GROUPS = st.sampled_from(["", "", "", "g0", "g1", "g2", "g3"])
STRATA = st.sampled_from(["python", "c"])
CORPORA = st.lists(st.tuples(TEXTS, GROUPS, STRATA), max_size=22).map(
    lambda rows: [Doc(t, group, f"d{number:02}", stratum) for number, (t, group, stratum) in enumerate(rows)]
)
MODES = st.sampled_from([{}, {"folds": 3, "fold": 1}, {"stratify": "language"}, {"stratify": "language", "folds": 3}])


def families_and_groups() -> list[Doc]:
    """2,000 documents: families of near-duplicates, exact copies, groups."""
    dice = random.Random(2)
    docs = []
    while len(docs) < 2000:
        original = text(dice, dice.randint(20, 90))
        for _ in range(dice.choice([1, 1, 1, 2, 3, 8])):
            group = f"g{dice.randrange(150)}" if dice.random() < 0.5 else ""
            one = near(dice, original, dice.randint(0, len(original.split()) // 40))
            docs.append(Doc(one + dice.choice(["", " \n"]), group, f"{len(docs)}"))
    return docs[:2000]


def line_of(doc: Doc, split: int, salt: str, *, kept: bool = True) -> Lines:
    """The line of the ledger that lists the document, by default as kept."""
    high, low = int.from_bytes(doc.content[:8], "big"), int.from_bytes(doc.content[8:12], "big")
    numbers = (high, low, position(doc.unit, salt), 0, int(RANKS[split]) + (not kept))
    kinds = (np.uint64, np.uint32, np.uint64, np.uint32, np.uint8)
    return lines_of(Columns(*(np.array([n], dtype=kind) for n, kind in zip(numbers, kinds, strict=True))))


def ledger_of(folder: Path, lines: Sequence[Lines], salt: str) -> Path:
    """A ledger folder with these lines only."""
    shutil.rmtree(folder, ignore_errors=True)
    write_folder(folder, lines, salt_mark(salt))
    return folder


class Dealer:
    """Deals documents and keeps ledgers in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.runs = folder, 0

    def deal(self, docs: Sequence[Doc], params: Split, ledger: Path | None = None) -> Result:
        """Deal with the ledger of that folder (None: stateless mode), and accept the result in a copy of it."""
        self.runs += 1
        known = read_ledger(ledger, salt=params.salt) if ledger else Ledger.empty()
        documents = candidates(docs, params.salt)
        with stored(self.folder / f"sets-{self.runs}", [canonical(d.text) for d in docs]) as sets:
            dealt = deal(documents, sets, known, params, Crew())
        sets.delete()
        folder = self.folder / f"ledger-{self.runs}"
        if ledger:
            shutil.copytree(ledger, folder)
            new = self.folder / "new"
            write_new_lines(new, new_lines(documents, dealt, known, params), salt=params.salt, mark=known.mark)
            accept_new_lines(new, folder)
        return Result(docs, documents, dealt, folder, known)

    def empty(self) -> Path:
        folder = self.folder / "empty"
        folder.mkdir(exist_ok=True)
        (folder / "all.txt").touch()
        return folder


class Result(NamedTuple):
    docs: Sequence[Doc]
    documents: DocumentKeys
    dealt: Any
    ledger: Path  # after accept
    known: Ledger

    @property
    def parts(self) -> list[str]:
        return ["" if part == DROPPED else PARTS[part] for part in self.dealt.part.tolist()]

    @property
    def reasons(self) -> list[str]:
        return [REASONS[number] for number in self.dealt.reason.tolist()]

    @property
    def ledger_bytes(self) -> bytes:
        return (self.ledger / "all.txt").read_bytes()

    @property
    def verdicts(self) -> list[tuple[str, str, str]]:
        """Part, reason and what stands for it, of each document."""
        keepers = [self.docs[i].path if i >= 0 else "" for i in self.dealt.kept_by.tolist()]
        return list(zip(self.parts, self.reasons, keepers, strict=True))
