"""Make a document from the bytes of a file, for folders, archives, packages and Git repositories. Used by: ingest."""

from __future__ import annotations

from dataclasses import dataclass

from codex_ml.core.errors import Reason, reason_of
from codex_ml.documents.document import Document, Refused, derived_id, writable
from codex_ml.documents.licences import UNKNOWN, both, licence_of_text
from codex_ml.ingest.readers.languages import language_of
from codex_ml.ingest.readers.notebooks import code_of_notebook
from codex_ml.ingest.readers.tasks import Context
from codex_ml.ingest.readers.texts import PYTHON, UTF_16, WrongEncoding, decode_text, missing_content, python_source

LONGEST_NAME = 4096  # characters; PATH_MAX of Linux


@dataclass(frozen=True)
class Origin:
    """What the documents of a folder, an archive or a repository have in common.

    Attributes:
        label: source of the documents.
        licence: licence of the whole. If a file has an SPDX header, both apply.
        group_label: the group for `group: source`, and prefix of the groups for `group: folder`; "" for the label.
    """

    context: Context
    label: str
    licence: str
    group_label: str = ""

    @property
    def max_bytes(self) -> int:
        return self.context.max_bytes

    def document(self, name: str, data: bytes) -> Document | Refused:
        """The document of the file with this relative name and content, or its refusal."""
        path = writable(name)

        def refused(line: int | None, reason: str, *, bad: bool = True) -> Refused:
            return Refused(self.label, path, line, reason, bad, self._place(path))

        if len(data) > self.max_bytes:
            return refused(None, Reason("longer than {} bytes", self.max_bytes), bad=False)
        if reason := missing_content(data):
            return refused(None, reason, bad=False)
        try:
            text = _text(data, path)
        except UnicodeDecodeError as error:
            start = error.start + len(data) - len(error.object)  # a byte order mark is not part of the object
            return refused(data.count(b"\n", 0, start) + 1, _not_text(data, start, error.encoding.lower()))
        except ValueError as error:
            return refused(_line(error), reason_of(error))
        if "\0" in text:
            return refused(text.count("\n", 0, text.index("\0")) + 1, "NUL bytes, not text")
        if not text.strip():
            return refused(None, "empty", bad=False)
        own = licence_of_text(text)  # a vendored file can have another licence than the package around it
        return Document(
            source=self.label,
            path=path,
            id=derived_id(self.label, path, text),
            group=self._group(path),
            licence=both(self.licence, own) if own else self.licence or UNKNOWN,
            language=language_of(path),
            text=text,
            place=self._place(path),
        )

    def refused(self, name: str, reason: str, *, bad: bool) -> Refused:
        """The refusal of the file with this name. A name that no system allows is cut to LONGEST_NAME characters."""
        path = writable(name[:LONGEST_NAME])
        return Refused(self.label, path, None, reason, bad, self._place(path))

    def _place(self, path: str) -> str:
        return path if self.context.file == "." else f"{self.context.file}/{path}"

    def _group(self, path: str) -> str:
        """The group of a document: none (""), the whole archive or repository, or its top folder."""
        whole, by = self.group_label or self.label, self.context.source.group
        if by == "none":
            return ""
        folder = path.partition("/")[0] if "/" in path else ""
        return whole if by == "source" else f"{whole}/{folder}" if folder else ""


def _text(data: bytes, path: str) -> str:
    name = path.lower()
    if name.endswith(".ipynb"):
        return code_of_notebook(data)
    return python_source(data) if name.endswith(PYTHON) else decode_text(data)


def _line(error: ValueError) -> int:
    """The line of an error: the line of a Python file's encoding cookie, else 1."""
    return error.line if isinstance(error, WrongEncoding) else 1


def _not_text(data: bytes, start: int, encoding: str) -> Reason:
    if encoding.startswith("utf-16") and data.startswith(UTF_16):
        return Reason("begins as UTF-16, but is none at byte {}", start)
    if b"\0" in data[:1024]:
        return Reason("NUL bytes, not UTF-8 text (UTF-16 without a byte order mark, or binary)")
    name = Reason("UTF-8") if encoding == "utf-8" else encoding
    return Reason("byte 0x{:02X} at offset {} is not {}", data[start], start, name)
