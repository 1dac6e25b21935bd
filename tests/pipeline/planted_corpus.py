"""A corpus of invented texts with planted secrets, and a search for their values in everything that a workspace holds."""

from __future__ import annotations

import base64
import gzip
import json
import random
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq
from ahocorasick_rs import BytesAhoCorasick

from codex_ml.core.pipeline import load_lock
from codex_ml.policy.rules import load_policy
from codex_ml.safety_audit.planted import planted

SEED = 16
WORDS = 300
# Where raw text must be, and what Git and DVC hold of it.
RAW = ("data/raw", "data/corpus", "data/packed")
FRAMES = (
    "\u2028key {}\n",
    "\x85key {}\n",
    "\nkey {}\n",
    "\nkey {}\n",
)  # C055; the last one is spelt with a JSON escape


def write_corpus(file: Path, policy: Path, *, plain: int) -> list[str]:
    """Write JSON Lines of random words, and plant a value of each rule of the policy that removes what it finds.

    Args:
        plain: number of texts without a planted value.

    Returns:
        The planted values.
    """
    rng = random.Random(SEED)
    words = [
        "".join(rng.choices("bcdfglmnprst", k=2)) + rng.choice("aeiou") + rng.choice("lnrstm") for _ in range(WORDS)
    ]
    rules = load_policy(policy)
    allowed = {rule.id for rule in rules.rules if rule.action == "allow"}
    made = [
        (text.split("value = ", 1)[1].removesuffix("\n    return 1\n"), value)
        for rule, text, value in planted(SEED, 1, providers=rules.providers)
        if rule not in allowed
    ]
    lines = [_line(rng, words, f"\n{text}\n") for text, _ in made]
    keys = ["gh" + "p_" + "".join(rng.choices("abcdefghijkmnpqrstuvwxyz23456789", k=36)) for _ in FRAMES]
    lines += [_line(rng, words, frame.format(key)) for frame, key in zip(FRAMES, keys, strict=True)]
    lines[-1] = lines[-1].replace("gh" + "p_", "\\u0067hp\\u005f")
    lines += [_line(rng, words, "\n") for _ in range(plain)]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return [value for _, value in made] + keys


def _line(rng: random.Random, words: list[str], middle: str) -> str:
    text = " ".join(rng.choices(words, k=15)) + middle + " ".join(rng.choices(words, k=15)) + "\n"
    return json.dumps({"text": text, "licence": "MIT"}, ensure_ascii=False)


def spellings(value: str) -> Iterator[bytes]:
    """A value as it is, backwards, in hexadecimal, as JSON and addresses write it, and in base64 of a text around it."""
    yield value.encode()
    yield value[::-1].encode()
    yield value.encode().hex().encode()
    yield "".join(f"%{byte:02X}" for byte in value.encode()).encode()
    yield quote(value, safe="").encode()
    for ascii_only in (True, False):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield escaped.encode()
        yield json.dumps(escaped)[1:-1].encode()  # JSON in JSON
    for shift in range(3):
        data = bytes(shift) + value.encode()
        whole = base64.b64encode(data[: len(data) // 3 * 3])
        yield whole[(4 if shift else 0) :]  # the first group depends on the text before the value


def holding(root: Path, values: Iterable[str], *, leave_out: Iterable[str] = RAW) -> dict[str, set[str]]:
    """The files of a workspace that hold a value: name -> values. Git's own files are left out."""
    named = {spelling: value for value in values for spelling in spellings(value)}
    patterns = list(named)
    search, skipped = BytesAhoCorasick(patterns), {root / name for name in leave_out} | {root / ".git"}
    skipped |= set(_cached(root, leave_out))
    found: dict[str, set[str]] = {}
    for file in sorted(root.rglob("*")):
        if not file.is_file() or file in skipped or skipped & set(file.parents):
            continue
        for content in contents(file):
            for place in search.find_matches_as_indexes(content, overlapping=True):
                found.setdefault(file.relative_to(root).as_posix(), set()).add(named[patterns[place[0]]])
    return found


def contents(file: Path) -> Iterator[bytes]:
    """The bytes of a file, and what they are if the file is compressed."""
    data = file.read_bytes()
    yield data
    if data[:4] == data[-4:] == b"PAR1":
        yield repr(pq.read_table(file).to_pylist()).encode()
        for row in pq.read_table(file).to_pylist():
            yield from (text.encode() for text in row.values() if isinstance(text, str))
    elif data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    elif data[:2] == b"PK" and zipfile.is_zipfile(file):  # not byte code that names the end of an archive
        with zipfile.ZipFile(file) as archive:
            yield from map(archive.read, archive.namelist())


def _cached(root: Path, outs: Iterable[str]) -> Iterator[Path]:
    """The objects of DVC's cache that are these outputs."""
    if not (root / "dvc.lock").exists():  # the stages ran without DVC
        return
    hashes = {out: digest for locked in load_lock(root / "dvc.lock").values() for out, digest in locked.outs.items()}
    for out in outs:
        for name, digest in hashes.items():
            if name != out and not name.startswith(f"{out}/"):
                continue
            file = _object(root, digest)
            if digest.endswith(".dir"):
                yield from (_object(root, entry["md5"]) for entry in json.loads(file.read_bytes()))
            yield file


def _object(root: Path, digest: str) -> Path:
    return root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
