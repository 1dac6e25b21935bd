"""Disguised text: zero-width characters, look-alike letters, escapes, strings in parts, and one level of base64.

A scan of the raw text misses `ig<ZWSP>nore`, a key with a Cyrillic `А` or a `\\u0041` in it, and a key file that a
deployment tool encoded in base64. `reveal` returns the text as a reader, a JSON parser or a model takes it. It also
maps offsets back to the raw text, so a redaction replaces the right span.
Used by: scan.py, match.py, redact.py, disguises.py.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

# Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt), which includes the bidi marks, and the bidi
# embeddings and isolates. Tag characters have a range of their own, because they spell ASCII (U+E0041 is A).
_IGNORED = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
)
_TAGS = "\U000e0000-\U000e0fff"
# Letters that look like Latin ones (Unicode UTS 39, confusables.txt, Cyrillic, Greek and Armenian rows).
LOOKALIKES = dict(
    zip(
        "АВЕЅІЈКМНОРСТХУаесѕіјорхуһԁԛԝ" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧονι" + "օսոһ" + "ӀіӏЬ",
        "ABESIJKMHOPCTXYaecsijopxyhdqw" + "ABEZHIKMNOPTYXovi" + "ounh" + "Iilb",
        strict=True,
    )
)
_ALIKE = "".join(sorted(LOOKALIKES))
# Compatibility letters, digits and spaces: full-width, mathematical, enclosed. The other full-width signs are normal in
# Chinese text.
_WIDE = "\u00a0\u2000-\u200a\u202f\u205f\u3000\uff10-\uff19\uff20-\uff3a\uff41-\uff5a\u24b6-\u24e9\U0001d400-\U0001d7ff"
# Only look-alikes beside a Latin letter or digit: a Russian word is not a disguise, and folding one costs as much as 50
# scans.
_UNICODE = re.compile(
    f"[{_IGNORED}]+|[{_TAGS}{_WIDE}]|(?<=[A-Za-z0-9_])[{_ALIKE}]+|(?<![{_ALIKE}])[{_ALIKE}]++(?=[{_IGNORED}]?[A-Za-z0-9_])"
)
_ASCII = bytes(range(128))
_SUSPECT = frozenset(  # single characters, and the ranges written out
    chr(code)
    for first, last in re.findall("(.)(?:-(.))?", _IGNORED + _TAGS + _WIDE + _ALIKE, re.DOTALL)
    for code in range(ord(first), ord(last or first) + 1)
)
# Escapes of printable ASCII in JSON, JavaScript, Python, C. `\\n` and similar ones stay, because they end a value.
_ESCAPE = r"\\(?:u00|x|u\{)([2-7][0-9a-fA-F])(?:(?<=\{..)\})?"

# What joins the parts of a string in code: an operator or the end of a line between quotes, a backslash at the end of a
# line. A part of words has a space beside its quote, so messages in several parts are not joined here.
JOINER = 48  # characters of the longest joiner, with what it looks at
_SOLID = "[A-Za-z0-9+/=_!#$%@^~-]"
# One expression per quote: `re` finds the first character of an expression five times as fast as one of a class.
_JOINED = {
    quote: re.compile(
        rf"""{quote}(?=[ \t+.&~|\\\r\n])(?<={_SOLID}{{2}}.)[ \t]{{0,2}}(?:(?:[+&~]|\.{{1,2}}|\|\|)[ \t]{{0,2}})?"""
        rf"""(?:\\?\r?\n[ \t]{{0,32}})?(?:[+.&~][ \t]?)?[bBrRuUfF@]?{quote}(?={_SOLID}{{2}})"""
    )
    for quote in "\"'`"
}
_BACKSLASH = re.compile(rf"{_ESCAPE}|\\(?<={_SOLID}{{3}}\\)\r?\n[ \t]{{0,32}}(?={_SOLID}{{2}})")

BASE64 = "A-Za-z0-9+/"
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
MAX_BASE64 = 1 << 20  # characters per line of a run
# A run may be folded into lines. A line is part of it only when it holds nothing else. A JSON-escaped line end counts.
_REST = re.compile(
    rf"[{BASE64}]{{0,{MAX_BASE64}}}"
    rf"(?:(?:\\{{1,4}}[rn]|\s){{1,20}}[{BASE64}]{{16,{MAX_BASE64}}}"
    rf"(?=={{0,2}}[ \t]{{0,9}}(?:[\"'\r\n\\]|\Z))){{0,20000}}"
    rf"(?:\s{{1,20}}[{BASE64}]{{2,60}}={{1,2}}(?=[\"'\s\\]|\Z))?={{0,2}}"
)
FOLD = re.compile(r"\\{1,4}[rn]|\s")


@dataclass(frozen=True)
class View:
    """A text without its disguises, in segments that map back to the original.

    Attributes:
        text: the revealed text.
        starts: offset of each segment in `text`, ascending.
        origins: offset of each segment in the original.
        lengths: length of each segment in the original; 0 for a segment that is the same in both.
        changes: spans (start, end) of `text` that differ from the original; an empty one where a part is gone.
    """

    text: str
    starts: tuple[int, ...]
    origins: tuple[int, ...]
    lengths: tuple[int, ...]
    changes: tuple[tuple[int, int], ...]

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The span (start, end) in the original of a non-empty span of `text`.

        Ignored characters directly before or after it are not part of it.
        """
        return self._place(start)[0], self._place(end - 1)[1]

    def _place(self, index: int) -> tuple[int, int]:
        segment = bisect_right(self.starts, index) - 1
        if length := self.lengths[segment]:
            return self.origins[segment], self.origins[segment] + length
        place = self.origins[segment] + index - self.starts[segment]
        return place, place + 1


def reveal(text: str) -> View | None:
    """The text without disguises; None for a text that has none. For ASCII without a backslash that is two tests."""
    changes: list[tuple[int, int, str]] = []
    if not text.isascii() and not _SUSPECT.isdisjoint(_without_ascii(text)):
        for match in _UNICODE.finditer(text):
            if not any(map(_plain, set(match[0]))):  # one change for a run: a text may hold nothing else
                changes.append((*match.span(), ""))
            else:
                changes += [(place, place + 1, _plain(text[place])) for place in range(*match.span())]
    changes += [(*match.span(), "") for quote in _JOINED if quote in text for match in _JOINED[quote].finditer(text)]
    if "\\" in text:  # a search for two characters, such as `\\u`, takes thrice the time of that for an expression
        changes += [(*match.span(), chr(int(match[1], 16)) if match[1] else "") for match in _BACKSLASH.finditer(text)]
    changes.sort()
    return rewritten(text, changes) if changes else None


def _without_ascii(text: str) -> str:
    """The characters of a text that are not ASCII; a search for each takes five times as long."""
    return text.encode("utf-8", "surrogatepass").translate(None, _ASCII).decode("utf-8", "surrogatepass")


def rewritten(text: str, changes: Iterable[tuple[int, int, str]]) -> View:
    """The text with each span (start, end) of `changes` replaced; the spans are in order and do not overlap.

    >>> view = rewritten("abcd", [(1, 3, "-")])
    >>> view.text, view.changes
    ('a-d', ((1, 2),))
    """
    pieces: list[str] = []
    starts, origins, lengths, changed = [], [], [], []
    size = last = 0
    for start, end, plain in changes:
        for piece, origin, length in ((text[last:start], last, 0), (plain, start, end - start)):
            if piece:
                pieces.append(piece)
                starts.append(size)
                origins.append(origin)
                lengths.append(length)
                size += len(piece)
        changed.append((size - len(plain), size))
        last = end
    if last < len(text):
        pieces.append(text[last:])
        starts.append(size)
        origins.append(last)
        lengths.append(0)
    return View("".join(pieces), tuple(starts), tuple(origins), tuple(lengths), tuple(changed))


def may_disguise(character: str) -> bool:
    """Whether a character is invisible, or looks like an ASCII character, so that `reveal` may change it.

    >>> may_disguise("\u200b"), may_disguise("\u4e2d")
    (True, False)
    """
    return character in _SUSPECT


def plain_value(value: str) -> str:
    """A value without disguises, so that a disguised value equals the plain one."""
    view = reveal(value)
    return value if view is None else view.text


def _plain(character: str) -> str:
    """What a reader sees: nothing (""), an ASCII character, or the character itself."""
    code = ord(character)
    if 0xE0020 <= code < 0xE007F:
        return chr(code - 0xE0000)
    if character in LOOKALIKES:
        return LOOKALIKES[character]
    folded = unicodedata.normalize("NFKC", character)
    if len(folded) == 1 and folded.isascii():
        return folded
    return character if unicodedata.category(character)[0] in "LNS" else ""


def base64_forms(literal: str) -> dict[str, int]:
    """The base64 forms (RFC 4648) of `literal` at each of the three offsets in a group of three bytes.

    A form holds only the characters that `literal` alone decides. A form shorter than four characters is left out: by
    chance it would occur once per 260 kB of base64.

    Returns:
        form -> number of base64 characters between the start of the group and the form.
    """
    forms = {}
    data = literal.encode("utf-8")
    for skip in range(3):
        encoded = base64.b64encode(b"\0" * skip + data).decode()
        first = (8 * skip + 5) // 6  # characters before it also hold bits of the bytes before `literal`
        last = (8 * (skip + len(data))) // 6  # characters from here on also hold bits of what follows
        if last - first >= 4:
            forms[encoded[first:last]] = first
    return forms


def decode_base64(text: str, start: int, first: int) -> tuple[int, int, str] | None:
    """Decode the base64 run that holds a form at `start`; the form's group begins `first` characters earlier.

    Returns:
        (start of the run, end of the run with its padding, decoded text as Latin-1, one character per byte); None when
        the run begins after the form's group, or holds fewer than 8 characters.
    """
    left = _run_start(text, start)
    low = start - first
    if low < left:
        return None
    aligned = low - (low - left) // 4 * 4
    rest = _REST.match(text, start)
    end = rest.end() if rest else start
    body = FOLD.sub("", text[aligned:end]).rstrip("=")
    body = body[: len(body) - (len(body) % 4 == 1)]
    if len(body) < 8:
        return None
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4))
    except binascii.Error:  # only for a character outside the alphabet
        return None
    return left, end, data.decode("latin-1")


def _run_start(text: str, start: int) -> int:
    """Offset at which the base64 run that reaches `start` begins. Most runs are short, so the search grows in steps."""
    step = 64
    while True:
        floor = max(0, start - step)
        before = text[floor:start]
        left = floor + len(before.rstrip(_ALPHABET))
        if left > floor or floor == 0 or step >= MAX_BASE64:
            return left
        step *= 8
