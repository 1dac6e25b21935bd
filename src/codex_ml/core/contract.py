"""A JSON file that one stage writes and others read: its class is the only definition of its contents.

    class Packed(Contract):
        written_by = "pack"
        seq_len: int

    Packed(seq_len=256).write(folder / "pack.json")
    Packed.read(folder / "pack.json").seq_len

Used by: the modules `<stage>_files` of the nouns, which writer and readers import.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from codex_ml.core.errors import UserError
from codex_ml.core.io import read_json, write_json, write_ndjson
from codex_ml.core.problems import first_problem
from codex_ml.core.strict_json import parse_json_file


class Contract(BaseModel):
    """A JSON object with these keys and no other. Nothing is converted, and numbers are finite.

    A key with a default may be absent. What is absent when a file is read stays absent when it is written, so
    `write` gives back the bytes that `read` was given.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, validate_by_name=True, serialize_by_alias=True
    )

    written_by: ClassVar[str] = ""  # the stage that writes the file; "" for a part of a file

    @classmethod
    def read(cls, file: Path, *, stage: str = "") -> Self:
        """Read a file that holds one such object.

        Args:
            stage: the stage that writes this file, if it is not `written_by`.

        Raises:
            UserError: when the file is missing or damaged, or holds something else; the message names file and key.
        """
        anew = f"`dvc repro {stage or cls.written_by}` makes it anew"
        return cls._checked(_json_of(file, anew), str(file), anew)

    @classmethod
    def read_array(cls, file: Path) -> list[Self]:
        """Read a file that holds an array of the objects; raises like `read`."""
        anew = f"`dvc repro {cls.written_by}` makes it anew"
        values = _json_of(file, anew)
        if not isinstance(values, list):
            raise UserError(f"{file}: expected a JSON array, found {type(values).__name__}; {anew}")
        return [cls._checked(value, f"{file}: item {number}", anew) for number, value in enumerate(values, 1)]

    @classmethod
    def read_lines(cls, file: Path) -> Iterator[Self]:
        """Read a file that holds one object per line, line by line as the caller iterates; raises like `read`."""
        anew = f"`dvc repro {cls.written_by}` makes it anew"
        with _existing(file, anew).open("rb") as lines:  # bytes, so that only LF ends a line
            for number, line in enumerate(lines, 1):
                with _advising(anew):
                    value = parse_json_file(line, str(file), line=number)
                yield cls._checked(value, f"{file}:{number}", anew)

    def write(self, file: Path) -> None:
        """Write the object as deterministic JSON, atomically."""
        write_json(file, self.as_json())

    @classmethod
    def write_array(cls, file: Path, values: Iterable[Self]) -> None:
        """Write a file that holds an array of the objects, atomically."""
        write_json(file, [value.as_json() for value in values])

    @classmethod
    def write_lines(cls, file: Path, values: Iterable[Self]) -> None:
        """Write a file that holds one object per line, atomically and without holding all objects in memory."""
        write_ndjson(file, (value.as_json() for value in values))

    def as_json(self) -> dict[str, Any]:
        """The JSON object, without the keys that are absent."""
        return self.model_dump(mode="json", exclude_unset=True)

    @classmethod
    def _checked(cls, value: Any, where: str, anew: str) -> Self:
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected a JSON object, found {type(value).__name__}; {anew}")
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise UserError(f"{where}: {first_problem(error, show=False).line}; {anew}") from None


def _existing(file: Path, anew: str) -> Path:
    if not file.exists():
        raise UserError(f"{file} is missing; {anew.removesuffix(' anew')}")
    return file


def _json_of(file: Path, anew: str) -> Any:
    existing = _existing(file, anew)
    with _advising(anew):
        return read_json(existing)


@contextmanager
def _advising(anew: str) -> Iterator[None]:
    """Add to a message about a damaged file how to get a whole one."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; {anew}") from None
