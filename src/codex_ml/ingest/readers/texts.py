"""Decode the bytes of a file to text, and recognise pointers to content that is elsewhere (Git LFS, git-annex).

Used by: ingest, for all files in folders, archives, packages and Git repositories.
"""

from __future__ import annotations

import codecs
import re
import tokenize
from io import BytesIO

from codex_ml.core.errors import Reason

PYTHON = (".py", ".pyi", ".pyw")
HOST_NAMES = ("punycode", "idna")  # codecs for host names, not for texts; one of them takes quadratic time
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
POINTER_BYTES = 1024  # a Git LFS pointer is shorter; git-annex reads 32 KiB, but its path is in the first line
# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md, and two older names of Git LFS
LFS = re.compile(r"version https?://(?:git-lfs\.github\.com/spec|git-media\.io|hawser\.github\.com/spec)/v/?[0-9]+")
LFS_KEY = re.compile(r"([a-z0-9.-]+) \S.*")
LFS_VALUES = {"oid": re.compile(r"oid [a-z0-9]+:[0-9a-f]{32,}"), "size": re.compile(r"size [0-9]+")}
ANNEX = re.compile(rb"[\\/]annex[\\/]objects[\\/][^\s\\/]+-[^\s\\/]+\r?\n?\Z")


class WrongEncoding(ValueError):
    """A Python file declares an impossible encoding in line `line`."""

    def __init__(self, line: int, reason: Reason) -> None:
        super().__init__(reason)
        self.line = line


def decode_text(data: bytes) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark. The mark is not part of the text.

    Raises:
        UnicodeDecodeError: for other bytes.
    """
    return data.decode("utf-16" if data.startswith(UTF_16) else "utf-8-sig")


def python_source(data: bytes) -> str:
    """Decode a Python file as `tokenize.open` does, by byte order mark and cookie (PEP 263), but keep its line ends.

    It is stricter in one point, as PEP 263 and the interpreter are: decoding with the declared encoding must give the
    same cookie. UTF-16 or EBCDIC would turn a file of ASCII into other letters.

    Raises:
        UnicodeDecodeError: for bytes that the encoding cannot decode.
        WrongEncoding: for a cookie that contradicts the byte order mark, or that names no text encoding.
    """
    if data.startswith(UTF_16):  # Python does not read UTF-16, but the byte order mark is clear
        return decode_text(data)
    head = b"\n".join(data.split(b"\n", 2)[:2]) + b"\n"
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(head).readline)
    except SyntaxError as error:
        _refuse_bytes(data, len(head))
        line, name = _cookie(head)
        mark = head.startswith(codecs.BOM_UTF8) and "unknown" not in str(error)
        problem = "the byte order mark of UTF-8 and the cookie {!r} contradict each other" if mark else UNKNOWN_CODEC
        raise WrongEncoding(line, Reason(problem, name)) from None
    line, name = _cookie(head)
    if encoding.startswith("utf-8"):
        return data.decode(encoding)
    try:
        if codecs.lookup(encoding).name in HOST_NAMES:
            raise LookupError
        again = head.decode(encoding, "replace")
        if _cookie(again.encode("utf-8", "replace")) != (line, name):
            raise LookupError
        return data.decode(encoding)
    except UnicodeDecodeError as error:  # some codecs report no offset, or other bytes than they were given
        start = error.start if error.object == data else 0
        raise UnicodeDecodeError(encoding, data, start, min(start + 1, len(data)), error.reason) from None
    except (LookupError, UnicodeError):
        raise WrongEncoding(line, Reason(UNKNOWN_CODEC, name)) from None


def _refuse_bytes(data: bytes, size: int) -> None:
    """Raise UnicodeDecodeError when the first `size` bytes are not UTF-8."""
    try:
        decode_text(data)
    except UnicodeDecodeError as error:
        if error.start + len(data) - len(error.object) < size:
            raise


UNKNOWN_CODEC = "the cookie names {!r}, which is not an encoding of Python source"


def _cookie(head: bytes) -> tuple[int, str]:
    """(line, name of the encoding) of the cookie in the first two lines; (1, "") without a cookie."""
    for number, line in enumerate(head.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")[:2], 1):
        if match := tokenize.cookie_re.match(line):
            return number, match[1]
    return 1, ""


def missing_content(data: bytes) -> Reason | None:
    """The reason for refusing bytes that are a pointer to content elsewhere; None when they are content."""
    if len(data) >= POINTER_BYTES:
        return None
    if data.startswith(b"version ") and _is_lfs_pointer(data):
        return Reason("a Git LFS pointer, the content is missing; `git lfs pull` fetches it")
    if ANNEX.match(data):
        return Reason("a git-annex pointer, the content is missing; `git annex get` fetches it")
    return None


def _is_lfs_pointer(data: bytes) -> bool:
    """Whether the first line is a version and sorted keys follow, with oid and size.

    It accepts the same blanks and line ends as Git LFS.
    """
    try:
        lines = [line.rstrip("\r") for line in data.decode("utf-8").strip().split("\n")]
    except UnicodeDecodeError:
        return False
    lines = [line for line in lines if line]
    if not LFS.fullmatch(lines[0]):
        return False
    found = [LFS_KEY.fullmatch(line) for line in lines[1:]]
    keys = [match[1] for match in found if match]
    if len(keys) < len(found) or keys != sorted(set(keys)):
        return False
    return all(any(value.fullmatch(line) for line in lines) for value in LFS_VALUES.values())
