"""Make a document from a record (a JSON object or a row), for all formats that have fields. Used by: ingest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Any

from codex_ml.core.errors import Reason, reason_of
from codex_ml.documents.document import Document, Refused, derived_id, map_texts
from codex_ml.documents.instructions import INPUT
from codex_ml.documents.licences import UNKNOWN, stricter
from codex_ml.ingest.config import Fields
from codex_ml.ingest.readers import names_seen
from codex_ml.ingest.readers.tasks import Context

MAX_DEPTH, LONGEST_NAME = 100, 200
LONGEST_SHORT = 4096  # characters of an id, a group, a language
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"
INDEX = re.compile(r"__index_level_\d+__\Z")  # the column in which pandas stores row numbers
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False
)  # dumps would build one per call
SURROGATE = re.compile("[\ud800-\udfff]")


class BadRecord(Exception):
    """The reason why a record is refused; `bad` as in `Refused`."""

    def __init__(self, reason: str, *values: object, bad: bool = True) -> None:
        super().__init__(Reason(reason, *values))
        self.bad = bad


def record_document(context: Context, record: Mapping[str, Any], line: int) -> Document | Refused:
    """The document of a record, or its refusal.

    Args:
        line: physical line or row of the record.
    """
    names_seen.here.see_fields(record, context.fields_looked_for)
    try:
        return _document(record, context, line)
    except BadRecord as error:
        return context.refused(line, reason_of(error), bad=error.bad)
    except RecursionError:
        return context.refused(line, TOO_DEEP)


def _document(record: Mapping[str, Any], context: Context, line: int) -> Document:
    source, names = context.source, context.source.fields
    text = _text(record, names.text)
    prompt, completion = _text(record, names.prompt), _text(record, names.completion)
    given = _text(record, names.input) if names.input else None
    if prompt is not None and given:
        prompt = f"{prompt}{INPUT}{given}"
    messages = _json(record, names.messages, _check_messages)
    tools = _json(record, names.tools, _check_tools) if messages is not None else None
    used = _form(record, names, text, prompt, completion, messages)
    licences: tuple[str, ...] = (names.licence,)
    if names.licence == "licence":  # both spellings, in any case
        licences = tuple(sorted(key for key in record if key.lower() in ("licence", "license")))
    meta = _meta(record, {*used, names.id, names.group, *licences, names.language})
    parts = [part for part in (text, prompt, completion, messages, tools) if part is not None]
    name, group = _name(record, names.id), _name(record, names.group)
    licence_text, language = _licence(record, licences), _text(record, names.language) or ""
    _check(parts, (meta, name, group, licence_text, language), context.max_bytes)
    _check_length({names.id: name, names.group: group, names.language: language}, meta, context.record_limit)
    return Document(
        source=source.label,
        path="",
        id=name or derived_id(source.label, "", "\0".join(parts)),
        group=group,
        licence=licence_text or source.licence or UNKNOWN,
        language=language or "text",
        text=text,
        prompt=prompt,
        completion=completion,
        messages=messages,
        tools=tools,
        meta=meta,
        place=f"{context.file}:{line}",
    )


def _form(
    record: Mapping[str, Any],
    names: Fields,
    text: str | None,
    prompt: str | None,
    completion: str | None,
    messages: str | None,
) -> tuple[str, ...]:
    """The field names of the form that the record has; raises BadRecord unless it has exactly one form."""
    found = (text is not None) + (prompt is not None or completion is not None) + (messages is not None)
    if text is not None and found == 1:
        return (names.text,)
    forms = f"{names.text}, {names.prompt} + {names.completion}, or {names.messages}"
    if found > 1:
        raise BadRecord(f"more than one of {forms}")
    if messages is not None:
        return names.messages, names.tools
    if prompt is not None and completion is not None:
        return (names.prompt, names.completion, *([names.input] if names.input else []))
    if found:
        missing = names.prompt if prompt is None else names.completion
        raise BadRecord(f"prompt and completion go together; {missing} is missing or null")
    for name in (names.text, names.prompt, names.messages):
        if name in record:
            raise BadRecord(f"{name} is null")
    present = ", ".join(sorted(_short(str(name)) for name in record)[:8]) or "nothing"
    raise BadRecord("no {} in it, found {}; see fields of ingest.sources", Reason(forms), present)


def _check(parts: list[str], others: tuple[str, ...], max_bytes: int) -> None:
    """Raise BadRecord for binary, empty or long content, and for a lone surrogate in any field.

    Args:
        parts: the content.
        others: metadata, id, group, licence and language.
    """
    empty, size = True, 0
    try:
        for part in parts:
            if "\0" in part or (part[:1] in "[{" and "\\u0000" in part and _holds_nul(part)):
                raise BadRecord("NUL characters, not text")
            empty = empty and (not part or part.isspace())
            size += len(part) if part.isascii() else len(part.encode("utf-8"))
        for other in others:
            if not other.isascii():
                other.encode("utf-8")
    except UnicodeEncodeError as error:
        found = SURROGATE.search(error.object)
        assert found is not None
        raise BadRecord("a lone surrogate (U+{:04X}) is not text", ord(found[0])) from None
    if empty:
        raise BadRecord("empty", bad=False)
    if size > max_bytes:
        raise BadRecord("longer than {} bytes", max_bytes, bad=False)


def _check_length(short: dict[str, str], meta: str, limit: int) -> None:
    """Raise BadRecord for a very long id, group, language or metadata. Only tables need it: lines have a limit.

    Args:
        short: field -> its text. Reports list ids and languages, so these must be short.
        limit: characters of the metadata.
    """
    if len(meta) > limit:
        raise BadRecord("the other fields are longer than {} bytes", limit, bad=False)
    for field, value in short.items():
        if len(value) > LONGEST_SHORT:
            raise BadRecord("{} is longer than {} characters", Reason(field), LONGEST_SHORT)


def _text(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    if value is None or isinstance(value, str):
        return value
    raise BadRecord(f"{name} must be a text, found {_kind(value)}")


def _licence(record: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The licence that the fields name; if two differ, both apply."""
    stated = [text for name in names if (text := _text(record, name))]
    return reduce(stricter, stated) if stated else ""


def _name(record: Mapping[str, Any], name: str) -> str:
    """The text of an id or a group: 7 and "7" are equal. null is "", so records without a group do not form one."""
    value = record.get(name)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRecord(f"{name} must be a text or an integer, found {_kind(value)}")
    return str(value)


def _json(record: Mapping[str, Any], name: str, check: Callable[[Any, str], None]) -> str | None:
    value = record.get(name)
    if value is None:
        return None
    check(value, name)
    return compact(value)


def compact(value: Any) -> str:
    """A value as JSON text, with its keys in their order and without blanks.

    Raises:
        BadRecord: for more than 100 nested levels, because a later stage could run out of stack.
    """
    text = _ENCODER.encode(value)
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value, MAX_DEPTH) > MAX_DEPTH:
        raise BadRecord(TOO_DEEP)
    return text


def _depth(value: Any, limit: int) -> int:
    """Number of nested lists and objects; it stops one level below the limit."""
    if limit < 0 or not isinstance(value, list | dict):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(item, limit - 1) for item in inner), default=0)


def _holds_nul(text: str) -> bool:
    """Whether a text of a JSON value holds NUL. It parses the JSON: after an escaped backslash, `u0000` is letters."""
    found: list[str] = []

    def look(part: str) -> str:
        found.append(part)
        return part

    try:
        map_texts(json.loads(text), look)
    except ValueError:  # a plain text that begins with a bracket
        return False
    return any("\0" in part for part in found)


def repeated(names: Iterable[str]) -> str | None:
    """The first name that occurs a second time; None when all names differ."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else text[:LONGEST_NAME] + "..."


def _check_messages(value: Any, name: str) -> None:
    if not isinstance(value, list) or not value:
        raise BadRecord(f"{name} must be a list of messages, found {_kind(value)}")
    for number, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRecord("{}[{}] must be an object with a role", Reason(name), number)
        content = message.get("content")
        if not (content is None or isinstance(content, str | list)):
            kind = Reason(_kind(content))
            content_is = "{}[{}].content must be a text, a list of parts or null, found {}"
            raise BadRecord(content_is, Reason(name), number, kind)


def _check_tools(value: Any, name: str) -> None:
    if not isinstance(value, list):
        raise BadRecord(f"{name} must be a list, found {_kind(value)}")


def _meta(record: Mapping[str, Any], used: set[str]) -> str:
    if record.keys() <= used:
        return ""
    rest = {key: value for key, value in record.items() if key not in used and not INDEX.match(key)}
    return compact(rest) if rest else ""


def _kind(value: Any) -> str:
    if value == []:
        return "an empty list"
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", str: "a text"}
    return names.get(type(value), type(value).__name__)
