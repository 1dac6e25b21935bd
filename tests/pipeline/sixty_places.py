"""Invented keys, each in a place of its own, in sources of every kind: fields, names, metadata, records that are refused."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from workspace import TASKS, Workspace, commit, make_wheel

WORDS = [
    "the",
    "cat",
    "reads",
    "a",
    "long",
    "book",
    "about",
    "rivers",
    "and",
    "small",
    "boats",
    "that",
    "go",
    "home",
    "before",
    "winter",
    "with",
    "all",
    "their",
    "nets",
]
COPIES = 8  # documents that share a name, so that some are in each split
ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789"

SOURCES = """\
ingest:
  max_document_bytes: 20000
  sources:
  - {kind: jsonl, path: data/raw/records/*.jsonl, bad_records: skip}
  - {kind: csv, path: "data/raw/tables/*.csv", licence: MIT, bad_records: skip}
  - {kind: parquet, path: data/raw/columns, licence: MIT, bad_records: skip}
  - {kind: files, path: data/raw/tree, glob: "**/*", licence: MIT, group: folder, bad_records: skip}
  - {kind: zip, path: data/raw/zips, glob: "**/*", licence: MIT, bad_records: skip, group: source}
  - {kind: tar, path: data/raw/tars, glob: "**/*", licence: MIT, bad_records: skip, group: source}
  - {kind: git, path: data/raw/project.git, revision: main, glob: "**/*", licence: MIT, bad_records: skip}
  - {kind: wheels, path: data/raw/wheels, bad_records: skip}
"""


class Keys:
    """Invented keys by the place that each is put into; the form is that of a token of a source forge."""

    def __init__(self) -> None:
        self.by_place: dict[str, str] = {}
        self._rng = random.Random(18)

    def __call__(self, place: str) -> str:
        """A new key for a place."""
        assert place not in self.by_place, place
        self.by_place[place] = "gh" + "p_" + "".join(self._rng.choices(ALPHABET, k=36))
        return self.by_place[place]

    def text(self, words: int = 40) -> str:
        """Words that no other text has in this order."""
        return " ".join(self._rng.choices(WORDS, k=words)) + f" {self._rng.getrandbits(60)}\n"


def plant(workspace: Workspace) -> Keys:
    """Write the sources, a benchmark, a list of accepted findings; return the keys in them."""
    key, raw = Keys(), workspace.root / "data/raw"
    raw.mkdir(parents=True, exist_ok=True)
    for write in (_records, _tables, _columns, _tree, _archives):
        write(key, raw)
    _git(key, workspace, raw)
    _wheels(key, raw / "wheels")
    _benchmark(key, workspace.root / "data/benchmarks")
    accepted = f'- id: "0123456789ab"\n  reason: the key {key("reason of an accepted finding")} opens nothing\n'
    accepted += f"  expires: 2999-01-01\n  by: {key('name of a reviewer')}\n"
    (workspace.root / "data/accepted_findings.yaml").write_text(accepted, encoding="utf-8")
    for name in ("HF_TOKEN", "WANDB_API_KEY", "OWN_VARIABLE"):
        workspace.extra[name] = key(f"environment {name}")
    return key


def _records(key: Keys, raw: Path) -> None:
    folder = raw / "records"
    folder.mkdir(parents=True)

    def shape(**more: Any) -> dict[str, Any]:
        return {"text": key.text(), "licence": "MIT", **more}

    same = key.text(60)
    named = base64.b64encode(f"export TOKEN={key('text in base64')} ".encode()).decode()
    records = [
        shape(text=f"{key.text()} key {key('text')}\n"),
        shape(text=f"{key.text()} key {named}\n"),
        shape(id=key("id")),
        shape(group=f"team {key('group')}"),
        shape(licence=f"MIT OR LicenseRef-{key('licence')}"),
        shape(licence=f"LicenseRef-{key('licence that is not allowed')}", id=key("id of a dropped record")),
        shape(language=key("language")),
        shape(source=key("field source"), **{key("key of meta"): 1}),
        shape(note=key("value of meta"), deep={"list": [{"name": {"k": key("nested value of meta")}}]}),
        shape(deep={key("nested key of meta"): None}),
        shape(url=f"https://user:{key('password of an address')}@example.org/"),
        shape(text=same, id=f"kept {key('id of one of two copies')}"),
        shape(text=same, id=f"copy {key('id of the other copy')}"),
        shape(text=f"{same} winter", id=f"near {key('id of a near copy')}"),
        {
            "prompt": f"{key.text()} {key('prompt')}",
            "completion": f"{key.text()} {key('completion')}",
            "licence": "MIT",
        },
        {
            "messages": [
                {
                    "role": key("role"),
                    "content": f"{key.text()} {key('content of a message')}",
                    "name": key("name of a speaker"),
                },
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": key("part of a content")}],
                    "tool_calls": [
                        {"function": {"name": key("called tool"), "arguments": {"q": key("argument of a tool")}}}
                    ],
                },
            ],
            "tools": [{"name": key("tool"), "description": f"with {key('description of a tool')}"}],
            "licence": "MIT",
        },
    ]
    named = [record for record in records if "text" in record and "id" not in record] * COPIES
    records += [{**record, "text": key.text()} for record in named]  # so that some are in each split
    records.append({"text": TASKS[0]["prompt"] + TASKS[0]["canonical_solution"], "licence": "MIT"})
    lines = [json.dumps(record) for record in records]
    lines += [
        f'{{"text": "x", "{(one := key("key that stands twice"))}": 1, "{one}": 2}}',
        json.dumps({key("only key of a record"): 1}),
        json.dumps({"text": 7, "note": key("record of a wrong type")}),
        json.dumps({"text": "x", "id": [key("id of a wrong type")]}),
        f'{{"text": "{key("line that is not closed")}',
        key("line that is not JSON"),
        json.dumps({"text": "x", "messages": [{"role": key("record of two forms")}]}),
        json.dumps(shape(text=" ", id=key("id of an empty record"))),
        json.dumps(shape(text="long " * 5000, id=key("id of a long record"))),
        json.dumps(shape(id="again")),
        json.dumps(shape(id="again", text=f"{key.text()} {key('record whose id comes again')}")),
    ]
    lines += [json.dumps(shape(id=f"plain {number}")) for number in range(120)]
    (folder / f"part-{key('name of a file of records')}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _tables(key: Keys, raw: Path) -> None:
    folder = raw / "tables"
    folder.mkdir()

    def write(name: str, *rows: list[str]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        (folder / name).write_text(text.getvalue(), encoding="utf-8")

    write(
        "good.csv", ["text", key("header of a table")], [f"{key.text()} {key('cell with the text')}", key("other cell")]
    )
    twice = key("header that stands twice")
    write("twice.csv", ["text", twice, twice], ["a", "b", "c"])
    write("none.csv", [key("only header of a table")], [key("cell of a refused table")])
    write(f"{key('name of a table')}.csv", ["text", "note"], [key.text(), "a", key("cell that is too many")])


def _columns(key: Keys, raw: Path) -> None:
    folder = raw / "columns"
    folder.mkdir()
    table = {
        "text": [key.text()],
        key("name of a column"): ["a"],
        "row": [{key("key of a struct"): key("value of a struct")}],
    }
    pq.write_table(pa.table(table), folder / f"{key('name of a Parquet file')}.parquet")
    pq.write_table(pa.table({"text": pa.array([1]), key("column of a wrong table"): ["a"]}), folder / "wrong.parquet")
    (folder / f"{key('name of a damaged Parquet file')}.parquet").write_bytes(b"PAR1 nothing")


def _tree(key: Keys, raw: Path) -> None:
    tree = raw / "tree"
    top = tree / f"team-{key('name of a folder')}"
    top.mkdir(parents=True)
    (top / "a.py").write_text(f"# {key.text()}KEY = '{key('content of a file')}'\n", encoding="utf-8")
    (top / f"{key('name of a file')}.py").write_text(f"# {key.text()}", encoding="utf-8")
    spdx = f"# SPDX-License-Identifier: MIT OR LicenseRef-{key('licence header')}\n# {key.text()}"
    for number in range(COPIES):
        (top / f"spdx{number}.py").write_text(spdx + key.text(), encoding="utf-8")
    cell = {"cell_type": "code", "source": f"# {key.text()}x = '{key('cell of a notebook')}'\n"}
    (top / "n.ipynb").write_text(json.dumps({"cells": [cell], "nbformat": 4}), encoding="utf-8")
    (top / f"{key('name of an empty file')}.py").touch()
    (top / f"{key('name of a binary file')}.py").write_bytes(b"\0\xff\xfe")
    (top / f"{key('name of a link')}.py").symlink_to("a.py")
    cookie = f"# -*- coding: {key('coding cookie')} -*-\n"
    (top / "cookie.py").write_text(cookie, encoding="utf-8")


def _archives(key: Keys, raw: Path) -> None:
    zips, tars = raw / "zips", raw / "tars"
    zips.mkdir()
    tars.mkdir()
    with zipfile.ZipFile(zips / f"{key('name of an archive')}.zip", "w") as archive:
        for number in range(COPIES):
            archive.writestr(f"src/{number}.py", f"# {key.text()}")
        archive.writestr(f"src/{key('name of a member')}.py", f"# {key.text()}")
        archive.writestr("src/b.py", f"# {key.text()}KEY = '{key('content of a member')}'\n")
    with zipfile.ZipFile(zips / f"{key('name of a hostile archive')}.zip", "w") as archive:
        archive.writestr(f"../{key('member outside')}.py", "x = 1\n")
    (zips / f"{key('name of a damaged archive')}.zip").write_bytes(b"PK\3\4 nothing")
    with tarfile.open(tars / f"{key('name of a tar file')}.tar.gz", "w:gz") as archive:
        for name, data in ((f"src/{key('member of a tar file')}.py", f"# {key.text()}"), ("src/e.py", "")):
            info = tarfile.TarInfo(name)
            info.size = len(data.encode())
            archive.addfile(info, io.BytesIO(data.encode()))


def _git(key: Keys, workspace: Workspace, raw: Path) -> None:
    made = workspace.root.parent / "made"
    made.mkdir()
    (made / f"{key('path in Git')}.py").write_text(f"# {key.text()}KEY = '{key('content in Git')}'\n", encoding="utf-8")
    there = Workspace(made, workspace.wheels)
    there.run("git", "init", "-q", "-b", "main")
    commit(there, f"say {key('message of a commit')}")
    there.extra.update({name: key(f"Git {name}") for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME")}, **_MAIL)
    there.run("git", "commit", "-q", "--amend", "-m", "again")
    there.run("git", "clone", "-q", "--bare", ".", str(raw / "project.git"))


_MAIL = {"GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_EMAIL": "a@example.org"}


def _wheels(key: Keys, folder: Path) -> None:
    make_wheel(folder, "delta", "1.0", f"MIT OR LicenseRef-{key('licence of a package')}", ("wsgiref",))


def _benchmark(key: Keys, folder: Path) -> None:
    tasks = [dict(task) for task in TASKS]
    tasks[0]["task_id"] = f"tiny/{key('task')}"
    tasks[1]["prompt"] = tasks[1]["prompt"].replace("Count", f"With {key('prompt of a benchmark')} count")
    tasks[1]["canonical_solution"] += f"    # {key('solution of a benchmark')}\n"
    tasks[2]["task_id"] = f"tiny/{key('task too short to be looked for')}"
    tasks[2]["test"] += f"    # {key('test of a benchmark')}\n"
    tasks[2]["canonical_solution"] = f"    raise ValueError('{key('reference solution that raises')}')\n"
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(task) + "\n" for task in tasks)
    (folder / "own.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
