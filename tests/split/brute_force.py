"""Near-duplicates by comparing every pair, from the published definition alone. The fast search must agree with it.

A shingle is a run of five lower-cased words. Two texts are near-duplicates when |A and B| / |A or B| of their sets of
shingles reaches the threshold, which is compared in whole numbers.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .dealing import plain_words

APACHE = (
    "Licensed under the Apache License, Version 2.0 (the 'License'); you may not use this file except in compliance "
    "with the License. You may obtain a copy of the License at http://www.apache.org/licenses/LICENSE-2.0 Unless "
    "required by applicable law or agreed to in writing, software distributed under the License is distributed on an "
    "'AS IS' BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the "
    "specific language governing permissions and limitations under the License."
)
SCRIPTS = (
    "的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生自会那后能对着事其里所去行过家十用发天如然作方成者多日都三小军二无同么经法当起与好看学进种将还分此心前面又定见只主没公从",
    "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわをん",
    "กขคงจฉชซญดตถทธนบปผฝพฟภมยรลวศสหอฮ",
)
SPACED = ("слово дело время человек рука жизнь день год место лицо друг глаз вопрос дом сторона страна мир случай голова",
          "كتاب بيت يوم رجل عين ماء باب شمس قمر بحر سماء ارض مدينة طريق",
          "घर दिन पानी आदमी काम हाथ बात रात साल देश लोग समय जगह नाम")  # fmt: skip


class BruteForce:
    """All pairs of n texts, or of n sets of shingles."""

    def __init__(self, sets: Sequence[set[str] | set[int]]) -> None:
        numbers: dict[str | int, int] = {}
        rows = [np.array([numbers.setdefault(value, len(numbers)) for value in one], dtype=np.int64) for one in sets]
        self.sizes = np.array([len(row) for row in rows], dtype=np.int64)
        self._rows = rows
        holders = np.repeat(np.arange(len(rows)), self.sizes)
        values = np.concatenate([*rows, np.zeros(0, np.int64)])
        self._holders = holders[np.argsort(values, kind="stable")]
        self._edges = np.concatenate([[0], np.cumsum(np.bincount(values, minlength=len(numbers)))])

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> BruteForce:
        return cls([shingles(text) for text in texts])

    def common(self, row: int) -> NDArray[np.int64]:
        """(n,) number of shingles that a text shares with each text."""
        lists = [self._holders[self._edges[value] : self._edges[value + 1]] for value in self._rows[row].tolist()]
        return np.bincount(np.concatenate([*lists, np.zeros(0, np.int64)]), minlength=len(self._rows))

    def neighbours(self, threshold: float) -> list[NDArray[np.int64]]:
        """For each text the others that reach the threshold."""
        share = Fraction(str(threshold))
        found = []
        for row in range(len(self._rows)):
            common = self.common(row)
            union = self.sizes + self.sizes[row] - common
            near = (common > 0) & (common * share.denominator >= union * share.numerator)
            near[row] = False
            found.append(np.flatnonzero(near))
        return found


def shingles(text: str) -> set[str]:
    lowered = text.lower()
    words = re.findall(r"\w+", lowered) if lowered.isascii() else plain_words(lowered)
    return {" ".join(words[i : i + 5]) for i in range(len(words) - 4)}


def keepers(order: Sequence[int], pinned: Sequence[bool], near: Sequence[NDArray[np.int64]]) -> dict[int, set[int]]:
    """Row -> similar kept rows before it. The list is empty for a kept row, and so for every pinned row."""
    kept = np.zeros(len(near), dtype=bool)
    result: dict[int, set[int]] = {}
    for row, stays in zip(order, pinned, strict=True):
        result[row] = set() if stays else set(near[row][kept[near[row]]].tolist())
        kept[row] = not result[row]
    return result


def words_of(dice: random.Random, count: int, *, of: int = 20_000) -> list[str]:
    return [f"w{dice.randrange(of)}" for _ in range(count)]


def edited(dice: random.Random, words: Sequence[str], share: float) -> list[str]:
    """The words, with about this share of them replaced, left out or doubled."""
    result: list[str] = []
    for word in words:
        if dice.random() >= share:
            result.append(word)
        elif (what := dice.randrange(3)) == 0:
            result.append(f"e{dice.randrange(10**6)}")
        elif what == 1:
            result += [word, word]
    return result


def everything(seed: int, size: int) -> list[str]:
    """Texts as in real corpora: headers, boiler-plate, families, chains, tiny texts, other scripts, a huge text."""
    dice = random.Random(seed)
    texts: list[str] = []

    def some(share: float) -> range:
        return range(max(2, round(share * size)))

    for _ in some(0.2):  # a licence header and a little of its own, from nothing to twice the header
        texts.append(f"{APACHE} {' '.join(words_of(dice, dice.choice([0, 1, 3, 8, 20, 45, 90, 160])))}")
    for _ in some(0.08):  # only the names differ, at every length
        lines = dice.randint(2, 12)
        name = f"Name{dice.randrange(10**6)}"
        body = " ".join(f"def get {name if i % 3 == 0 else 'x'} self return self field {i} end" for i in range(lines))
        texts.append(f"generated by protoc do not edit {body}")
    for _ in some(0.03):
        original = words_of(dice, dice.randint(5, 250))
        share = dice.choice([0.002, 0.01, 0.03, 0.05])
        texts += [" ".join(edited(dice, original, share)) for _ in range(dice.choice([2, 3, 3, 5, 12, 40]))]
    for _ in some(0.002):  # each resembles its neighbours only
        row, step = words_of(dice, 400), dice.choice([4, 8, 12])
        texts += [" ".join(row[start : start + 60]) for start in range(0, 300, step)]
    for _ in some(0.06):
        texts.append(" ".join(words_of(dice, dice.randint(0, 7), of=3)))
    for _ in some(0.02):
        letters = dice.choice(SCRIPTS)
        row = [dice.choice(letters) for _ in range(dice.randint(3, 120))]
        texts += ["".join(row), "".join(edited(dice, row, 0.03)), "".join(row[: len(row) * 7 // 8])]
    for _ in some(0.02):
        row = [dice.choice(dice.choice(SPACED).split()) for _ in range(dice.randint(3, 120))]
        texts += [" ".join(row), " ".join(edited(dice, row, 0.02)), " ".join(row).upper()]
    while len(texts) < size:
        texts.append(" ".join(words_of(dice, dice.randint(6, 120))))
    huge = words_of(dice, 30_000, of=10**6)  # 29,996 shingles; 20,998 of them are just over 0.7, 20,997 just below
    copies = [huge, huge[:21_002], huge[:21_001], edited(dice, huge, 0.01)]
    texts = [*dice.sample(texts, size - len(copies)), *(" ".join(words) for words in copies)]
    dice.shuffle(texts)
    return texts
