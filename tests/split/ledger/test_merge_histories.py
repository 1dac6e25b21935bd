"""Two people add data on their branches. Whatever they did, every order of merging gives the same answer.

The histories are drawn: documents added, taken out, hidden by a licence and shown again, the same text under two groups,
near-copies, stratify and folds switched, documents forgotten. What is checked is written from the promises alone.
"""

from __future__ import annotations

import base64
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import pytest

from codex_ml.core.errors import UserError
from codex_ml.split.config import Split
from codex_ml.split.ledger import edits as ledger_files
from codex_ml.split.ledger.edits import rewrite
from codex_ml.split.ledger.folder import read_ledger
from codex_ml.split.ledger.forgotten import add_tombstones

from ..brute_force import BruteForce
from ..dealing import Dealer, Doc, Result, variant

SALT = "pepper"
FILLER = [Doc(f"filler {i} of some words that nobody else has {i}", path=f"filler-{i}") for i in range(10)]
MODES: list[dict[str, object]] = [
    {},
    {},
    {"stratify": "language"},
    {"folds": 3, "fold": 1},
    {"stratify": "language", "folds": 3},
]


def content_of(doc: Doc) -> str:
    return base64.urlsafe_b64encode(doc.content[:12]).decode()


def params_of(mode: dict[str, object]) -> Split:
    return Split.model_validate({"val": 0.25, "test": 0.25, "salt": SALT, **mode})


def lines_in(folder: Path) -> list[tuple[str, ...]]:
    """The fields of every line, read by this test's own parser of the format."""
    lines = (folder / "all.txt").read_text(encoding="ascii").splitlines()
    return [tuple(line.split()) for line in lines if not line.startswith("#")]


def forgotten_in(folder: Path) -> set[str]:
    file = folder / "forgotten.txt"
    return {line.split()[0] for line in file.read_text(encoding="utf-8").splitlines()} if file.exists() else set()


@dataclass
class Branch:
    """What one person has: documents by path, those that a licence hides, the accepted ledger, the options."""

    name: str
    docs: dict[str, Doc]
    ledger: Path
    hidden: set[str] = field(default_factory=set)
    mode: dict[str, object] = field(default_factory=dict)
    folded: bool = False  # whether any of its lines was dealt with folds
    published: set[str] = field(default_factory=set)  # contents that were test documents of an accepted split
    count: int = 0

    def fork(self, name: str) -> Branch:
        return Branch(name, dict(self.docs), self.ledger, set(self.hidden), self.mode, self.folded, set(self.published))

    @property
    def visible(self) -> list[Doc]:
        return [doc for path, doc in self.docs.items() if path not in self.hidden]

    def step(self, dice: random.Random, dealer: Dealer) -> None:
        """Change the data or the options, split, accept."""
        for _ in range(dice.randint(1, 7)):
            self.count += 1
            path = f"{self.name}{self.count}"
            text = variant(dice.randrange(7), dice.choice([0, 0, 2, 4, 6, 8]), dice.choice(["", "", " \n"]))
            group = dice.choice(["", "", "", "g0", "g1", "g2", "g3", f"{self.name}-own"])
            self.docs[path] = Doc(text, group, path, dice.choice(["python", "c"]))
        for path in dice.sample(sorted(self.docs), dice.choice([0, 0, 1, 2])):
            if not path.startswith("filler"):
                del self.docs[path]
        self.hidden ^= set(dice.sample(sorted(self.docs), dice.choice([0, 0, 1, 3])))
        if dice.random() < 0.3:
            self.mode = dice.choice(MODES)
        if dice.random() < 0.15 and (known := lines_in(self.ledger)):
            self._forget(dice.choice(known)[0], dealer)
        try:
            result = dealer.deal(self.visible, params_of(self.mode), self.ledger)
        except UserError as error:
            assert "split is empty" in str(error)
            return
        self.ledger = result.ledger
        self.folded |= "folds" in self.mode
        self.published |= {
            content_of(doc) for doc, part in zip(result.docs, result.parts, strict=True) if part == "test"
        }

    def _forget(self, content: str, dealer: Dealer) -> None:
        dealer.runs += 1
        copy = dealer.folder / f"forgetful-{dealer.runs}"
        shutil.copytree(self.ledger, copy)
        add_tombstones(copy, [content], f"{self.name} asked for it")
        self.ledger = copy


def merged(folder: Path, branches: Sequence[Branch], dice: random.Random) -> Path:
    """The folder as Git's union merge may leave it: all lines of all sides, one way or another."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("all.txt", "forgotten.txt"):
        parts = [(b.ledger / name).read_bytes() for b in branches if (b.ledger / name).exists()]
        lines = b"".join(parts).splitlines(keepends=True)
        if name == "all.txt" and dice.random() < 0.3:
            lines = lines[:1] + dice.sample(lines, len(lines))
        if lines:
            lines[-1] = lines[-1].removesuffix(b"\n") + dice.choice([b"", b"\n", b"\n\n"])
        if parts:
            (folder / name).write_bytes(b"".join(lines))
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.stat().st_size}


def verdicts_of(result: Result) -> dict[str, tuple[str, ...]]:
    return dict(zip((doc.path for doc in result.docs), result.verdicts, strict=True))


def refuse_a_leak(result: Result, branches: Sequence[Branch]) -> None:
    """No test document of a branch, and nothing that resembles one, is in train; no group or pair is in two splits."""
    docs, parts = list(result.docs), result.parts
    gone = forgotten_in(result.ledger)
    clean = set().union(*(branch.published for branch in branches)) - gone
    if not any(branch.folded for branch in branches):
        held = {
            content for branch in branches for content, *_, letter in lines_in(branch.ledger) if letter in "VT"
        } - gone
    else:
        held = {
            content for branch in branches for content, *_, letter in lines_in(branch.ledger) if letter == "T"
        } - gone
    near = BruteForce.of_texts([doc.text for doc in docs]).neighbours(0.7)
    for row, doc in enumerate(docs):
        if content_of(doc) in clean:
            assert parts[row] in ("test", ""), f"{doc} was a test document and is in {parts[row]}"
        if content_of(doc) in held | clean:
            assert parts[row] != "train", f"{doc} was held out and is in train"
            for other in near[row].tolist():
                assert parts[other] != "train", f"{docs[other]} is in train and resembles {doc}, which was held out"
        if parts[row]:
            for other in near[row].tolist():
                assert parts[other] in ("", parts[row]), f"{doc} and {docs[other]} are near and in two splits"
    units = {(doc.unit, part) for doc, part in zip(docs, parts, strict=True) if part}
    assert len(units) == len({unit for unit, _ in units}), "a group is in two splits"
    kept = [doc.content for doc, part in zip(docs, parts, strict=True) if part]
    assert len(kept) == len(set(kept)), "a text is in the splits twice"


def check_pair(seed: int, folder: Path) -> bool:
    """Check a pair (or three) of histories; return True if their merge could be split."""
    dice = random.Random(seed)
    dealer = Dealer(folder)
    base = Branch("base", {doc.path: doc for doc in FILLER}, dealer.empty(), mode=dice.choice(MODES))
    base.step(dice, dealer)
    branches = [base.fork(name) for name in ("a", "b", "c")[: dice.choice([2, 2, 3])]]
    for branch in branches:
        for _ in range(dice.randint(1, 3)):
            branch.step(dice, dealer)
    gone = {path for path in base.docs if any(path not in branch.docs for branch in branches)}
    mode = dice.choice([branch.mode for branch in branches])
    hidden = set().union(*(branch.hidden for branch in branches)) if dice.random() < 0.5 else set()

    ledgers, answers, accepted = [], [], []
    for order in permutations(branches):
        docs = {path: doc for branch in order for path, doc in branch.docs.items() if path not in gone | hidden}
        ledger = merged(folder / "merged", order, dice)
        if dice.random() < 0.5:
            rewrite(ledger)
        mark = read_ledger(ledger, salt=SALT).mark
        try:
            result = dealer.deal(list(docs.values()), params_of(mode), ledger)
        except UserError as error:
            assert "split is empty" in str(error)
            assert not answers
            return False
        answers.append(verdicts_of(result))
        accepted.append(snapshot(result.ledger))
        rewrite(ledger)
        ledgers.append(snapshot(ledger))
        assert read_ledger(ledger, salt=SALT).mark == mark, "writing the canonical form changed what it means"
        rewrite(ledger)
        assert snapshot(ledger) == ledgers[-1], "the canonical form is not its own canonical form"
    assert all(value == ledgers[0] for value in ledgers), "the order of the merge is in the bytes of the ledger"
    assert all(value == answers[0] for value in answers), "the order of the merge moves a document"
    assert all(value == accepted[0] for value in accepted), "the order of the merge is in what is accepted"

    one, rest = (
        branches[0],
        branches[1:],
    )  # (a b) c and a (b c): first two of three are united and written, then the third
    if len(rest) == 2:
        for first, second, third in permutations(branches):
            pair = first.fork("pair")
            pair.ledger = merged(folder / "pair", [first, second], dice)
            rewrite(pair.ledger)
            whole = merged(folder / "whole", [pair, third], dice)
            rewrite(whole)
            assert snapshot(whole) == ledgers[0], "the union is not associative"
    again = one.fork("again")
    again.ledger = dealer.folder / "again"
    shutil.rmtree(again.ledger, ignore_errors=True)
    shutil.copytree(result.ledger, again.ledger)
    whole = merged(folder / "whole", [again, *branches], dice)
    rewrite(whole)
    assert snapshot(whole) == accepted[0], "merging what is merged already changes something"

    refuse_a_leak(result, branches)
    repeated = dealer.deal(result.docs, params_of(mode), result.ledger)
    assert repeated.parts == result.parts, "accepting the merge moves a document"
    assert snapshot(repeated.ledger) == accepted[0], "accepting the merge twice adds something"

    # A document that left the corpus and comes back brings its split along, so only new contents count here.
    known = {content for content, *_ in lines_in(result.ledger)}
    fresh = (
        Doc(variant(dice.randrange(8), dice.randrange(9)), dice.choice(["", "g0", "g2"]), f"late{i}") for i in range(9)
    )
    added = [doc for doc in fresh if content_of(doc) not in known]
    more = dealer.deal([*added, *result.docs], params_of(mode), result.ledger)
    free = forgotten_in(result.ledger)
    for doc, before, after in zip(result.docs, result.parts, more.parts[len(added) :], strict=True):
        assert before == after or content_of(doc) in free, (
            f"{doc} moved from {before or 'nowhere'} to {after or 'nowhere'}"
        )
    refuse_a_leak(more, branches)

    with pytest.MonkeyPatch.context() as patch:  # the form of large ledgers means the same
        patch.setattr(ledger_files, "LINES_IN_ONE_FILE", 1)
        sharded = merged(folder / "sharded", branches, dice)
        rewrite(sharded)
        assert not (sharded / "all.txt").exists()
        assert read_ledger(sharded, salt=SALT).mark == mark
        in_shards = dealer.deal(result.docs, params_of(mode), sharded)
    assert in_shards.verdicts == result.verdicts
    rewrite(in_shards.ledger)
    assert snapshot(in_shards.ledger) == accepted[0]
    return True


@pytest.mark.parametrize(
    "seeds", [range(16), pytest.param(range(16, 540), marks=pytest.mark.slow)], ids=["some", "524"]
)
def test_every_order_of_merging_means_the_same_and_the_test_set_stays_clean(tmp_path, monkeypatch, seeds):
    monkeypatch.setattr("os.fsync", lambda _: None)  # half of the time, and nothing here is about a crash
    done = 0
    for seed in seeds:
        folder = tmp_path / str(seed)
        try:
            done += check_pair(seed, folder)
        except Exception as error:
            error.add_note(f"in the pair of histories with the seed {seed}")
            raise
        shutil.rmtree(folder)
    assert done > 0.8 * len(seeds)
