"""Sources of documents: wheels, folders of files, JSON Lines.

Nothing is unpacked to disk, no name from an archive becomes a path, and what cannot be read is counted with a reason.
"""

from __future__ import annotations

import hashlib
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath
from typing import Any

from codex_ml.config import Source
from codex_ml.data.documents import Document
from codex_ml.data.licences import UNKNOWN, licence_of_metadata, licence_of_text
from codex_ml.errors import UserError
from codex_ml.io import parse_json

LANGUAGES = {
    ".py": "python", ".pyi": "python", ".js": "javascript", ".ts": "typescript", ".c": "c", ".h": "c", ".rs": "rust",
    ".go": "go", ".java": "java", ".sh": "shell", ".md": "markdown", ".rst": "restructuredtext", ".txt": "text",
}  # fmt: skip
DAMAGE = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)
METADATA_LIMIT = 1 << 20  # bytes of a wheel's METADATA
JSONL_LINE_LIMIT = 64 << 20  # bytes; a longer line is refused instead of filling the memory


@dataclass(frozen=True)
class Refused:
    """Something that is no document, and why. Listed in data/corpus/refused.ndjson."""

    source: str
    path: str
    reason: str

    @classmethod
    def of(cls, source: str, path: str, reason: str) -> Refused:
        """A refusal whose path can be written down, whatever bytes a file name holds."""
        return cls(source, _writable(path), reason)


def _writable(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_source(source: Source, *, max_bytes: int) -> Iterator[Document | Refused]:
    """All documents of one source, in an order that depends on names only.

    Raises:
        UserError: when the source is missing, damaged or malformed; names the file (and the line).
    """
    path = Path(source.path)
    if not path.exists():
        raise UserError(f"ingest.sources: {source.path} does not exist; put the data there or remove the source")
    reader = {"wheels": _read_wheels, "files": _read_files, "jsonl": _read_jsonl}[source.kind]
    yield from reader(source, path, max_bytes)


def _read_wheels(source: Source, folder: Path, max_bytes: int) -> Iterator[Document | Refused]:
    if not folder.is_dir():
        raise UserError(f"ingest.sources: {source.path} is no folder; `kind: wheels` reads a folder of wheels")
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise UserError(f"ingest.sources: {source.path} holds no wheel (*.whl)")
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                yield from _read_wheel(source, wheel, archive, max_bytes)
        except DAMAGE as error:
            raise UserError(f"{wheel} is not a whole wheel ({error}); delete it and run `dvc repro` again") from None


def _read_wheel(source: Source, wheel: Path, archive: zipfile.ZipFile, max_bytes: int) -> Iterator[Document | Refused]:
    name, version = wheel.name.split("-")[:2]
    release = f"{name.lower().replace('_', '-')}=={version}"
    metadata = next((n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)), None)
    licence = source.licence
    if metadata and archive.getinfo(metadata).file_size <= METADATA_LIMIT:
        headers = HeaderParser().parsestr(archive.read(metadata).decode("utf-8", "replace"))
        licence = licence_of_metadata(headers) or source.licence
    seen: set[str] = set()
    for member in sorted(archive.infolist(), key=lambda info: info.filename):
        if member.is_dir() or ".dist-info/" in member.filename or not _matches(member.filename, source.glob):
            continue
        if member.filename in seen:
            yield Refused.of(release, member.filename, "a second member of this name")
        elif member.file_size > max_bytes:
            yield Refused.of(release, member.filename, f"longer than {max_bytes} bytes")
        else:
            yield _decoded(release, member.filename, licence, archive.read(member))
        seen.add(member.filename)


def _read_files(source: Source, folder: Path, max_bytes: int) -> Iterator[Document | Refused]:
    if not folder.is_dir():
        raise UserError(f"ingest.sources: {source.path} is no folder; `kind: files` reads a folder")
    for file in sorted(folder.glob(source.glob)):
        name = file.relative_to(folder).as_posix()
        status = file.lstat()
        if stat.S_ISDIR(status.st_mode) or ".git" in file.parts:
            continue
        if not stat.S_ISREG(status.st_mode):  # a link can point out of the source, a FIFO blocks for ever
            yield Refused.of(source.path, name, "not a regular file")
        elif status.st_size > max_bytes:
            yield Refused.of(source.path, name, f"longer than {max_bytes} bytes")
        else:
            yield _decoded(source.path, name, source.licence, file.read_bytes())


def _read_jsonl(source: Source, file: Path, max_bytes: int) -> Iterator[Document | Refused]:
    if not file.is_file():
        raise UserError(f"ingest.sources: {source.path} is no file; `kind: jsonl` reads one JSON Lines file")
    with file.open("rb") as lines:  # binary: JSON Lines separates by LF only, text mode would also split at CR
        number = 0
        while line := lines.readline(JSONL_LINE_LIMIT):
            number += 1
            where = f"{file}:{number}"
            if len(line) == JSONL_LINE_LIMIT:
                raise UserError(f"{where}: the line is longer than {JSONL_LINE_LIMIT >> 20} MiB")
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not line.strip():
                continue
            text, licence = _record(line, where)
            if len(text.encode()) > max_bytes:
                yield Refused.of(source.path, f"line {number}", f"longer than {max_bytes} bytes")
            else:
                yield _document(source.path, f"line {number}", licence or source.licence, text, "text")


def _record(line: bytes, where: str) -> tuple[str, str | None]:
    try:
        record: Any = parse_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 (byte {error.start} of the line)") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON: {error}") from None
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise UserError(f'{where}: an object with a text field is wanted, such as {{"text": "..."}}')
    licence = record.get("licence", record.get("license"))
    if licence is not None and not isinstance(licence, str):
        raise UserError(f"{where}: licence must be a text, found {type(licence).__name__}")
    try:
        record["text"].encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: a lone surrogate at character {error.start} is no text") from None
    return record["text"], licence


def _decoded(source: str, path: str, licence: str, data: bytes) -> Document | Refused:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Refused.of(source, path, f"not UTF-8 (byte {error.start})")
    language = LANGUAGES.get(PurePosixPath(path).suffix.lower(), "other")
    return _document(source, path, licence, text, language)


def _document(source: str, path: str, licence: str, text: str, language: str) -> Document | Refused:
    path = _writable(path)
    if not text.strip():
        return Refused.of(source, path, "empty")
    if "\0" in text:
        return Refused.of(source, path, "binary (NUL)")
    sha256 = hashlib.sha256(text.encode("utf-8")).hexdigest()
    own = licence_of_text(text)  # a vendored file can be under another licence than the package around it
    if own and own != licence:
        licence = own if UNKNOWN in (own, licence) or not licence else f"({licence}) AND ({own})"
    return Document(source, path, licence or UNKNOWN, language, sha256, text)


def _matches(name: str, glob: str) -> bool:
    """`**/` in front also matches the top level, as in `Path.glob`."""
    path = PurePosixPath(name)
    return path.match(glob) or (glob.startswith("**/") and path.match(glob[3:]))
