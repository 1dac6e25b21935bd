"""From files to splits, through the code of the stage scripts: what changes the output, and what must not."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from codex_ml.cli.param_rules import validate_params
from codex_ml.core.errors import UserError
from codex_ml.core.paths import SPLIT_LEDGER
from codex_ml.core.pipeline import load_pipeline
from codex_ml.core.plugins import registered
from codex_ml.core.stage import Stage
from codex_ml.split.ledger.edits import accept_new_lines as accept_lines
from codex_ml.split.ledger.folder import NEW

REPOSITORY = Path(__file__).parents[2]
OUTPUTS = (
    "train.parquet",
    "val.parquet",
    "test.parquet",
    "dropped.ndjson",
    "new_ledger.txt",
    "contradictions.ndjson",
    "croissant.json",
)
SPLIT = {"val": 0.2, "test": 0.2, "licences": ["MIT"], "quality": {"min_alphanumeric_share": None}}
PARTS = ("train", "val", "test")


@pytest.fixture
def workspace(tmp_path, monkeypatch, project):
    """A repository without code: parameters, policy, an empty ledger; the current folder."""
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    shutil.copyfile(REPOSITORY / "dvc.yaml", tmp_path / "dvc.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def main_of(name):
    spec = importlib.util.spec_from_file_location(f"stage_{name}", REPOSITORY / f"stages/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


MAINS = {name: main_of(name) for name in ("ingest", "split")}


def run(name, params):
    Path("params.yaml").write_text(json.dumps(params), encoding="utf-8")  # JSON is YAML
    parsed = validate_params(params)
    spec = load_pipeline()[name]
    declared = SimpleNamespace(**{section: getattr(parsed, section) for section in spec.params})
    MAINS[name](Stage(spec, declared, parsed.runtime, {}))


def splits(shards, *, source=None, workers=1, **split):
    """Ingest and split these shards (lists of records, or whole lines); the bytes of every output."""
    raw = Path("data/raw/shards")
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir(parents=True)
    for number, records in enumerate(shards):
        lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
        (raw / f"{number:03}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    sources = [{"kind": "jsonl", "path": "data/raw/shards", "name": "shards", **(source or {})}]
    params = {
        "ingest": {"sources": sources},
        "split": {**SPLIT, **split},
        "runtime": {"progress": "off", "workers": workers},
    }
    run("ingest", params)
    run("split", params)
    return {name: Path("data/splits", name).read_bytes() for name in OUTPUTS}


def texts(part):
    return pq.read_table(f"data/splits/{part}.parquet").column("text").to_pylist()


def where():
    """Text -> split, for all documents that were kept."""
    return {text: part for part in PARTS for text in texts(part)}


def accept():
    accept_lines(NEW, SPLIT_LEDGER)


def record(text, **fields):
    return {"text": text, "licence": "MIT", **fields}


def corpus(seed, size, *, prefix="w", copies=0.3):
    """Records of random words, some of them edited copies of one before."""
    dice = random.Random(seed)
    words = [f"{prefix}{i}" for i in range(300)]
    found = []
    for _ in range(size):
        if found and dice.random() < copies:
            text = dice.choice(found).split()
            for _ in range(dice.randint(0, 2)):
                text[dice.randrange(len(text))] = dice.choice(words)
        else:
            text = dice.choices(words, k=dice.randint(3, 60))
        found.append(" ".join(text))
    return [record(text) for text in found]


examples = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@examples
@given(seed=st.integers(0, 10_000), shards=st.integers(1, 5))
def test_order_of_lines_and_number_of_shards_change_no_byte(workspace, seed, shards):
    records = corpus(seed, 60)
    shuffled = random.Random(seed + 1).sample(records, len(records))
    cut = [shuffled[i::shards] for i in range(shards)]
    assert splits([records]) == splits(cut)


@examples
@given(seed=st.integers(0, 10_000), extra=st.integers(1, 60))
def test_added_documents_move_no_old_one(workspace, seed, extra):
    first, second = corpus(seed, 60), corpus(seed, 60 + extra)[60:]
    shutil.rmtree(SPLIT_LEDGER)
    SPLIT_LEDGER.mkdir()
    (SPLIT_LEDGER / "all.txt").touch()
    splits([first])
    before = where()
    accept()
    splits([second, first])
    after = where()
    old = {r["text"] for r in first}
    assert {text: part for text, part in after.items() if text in old} == before


@examples
@given(seed=st.integers(0, 10_000))
def test_a_group_is_in_one_split(workspace, seed):
    dice = random.Random(seed)
    records = [{**r, "repo": dice.choice(["a", "b", "c", 7, "7", None, ""])} for r in corpus(seed, 80)]
    try:
        splits([records], source={"fields": {"group": "repo"}})
    except UserError as error:  # with so few groups a split may stay empty, which is refused
        assume("split is empty" not in str(error))
        raise
    parts = {}
    for part in PARTS:
        for group in pq.read_table(f"data/splits/{part}.parquet").column("group").to_pylist():
            if group:
                parts.setdefault(group, set()).add(part)
    assert all(len(found) == 1 for found in parts.values())


def shingles(text):
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def test_brute_force_finds_no_near_duplicate_across_splits(workspace):
    splits([corpus(5, 2000, copies=0.5)])
    kept = [(part, shingles(text)) for text, part in where().items()]
    posting = {}
    for number, (_, found) in enumerate(kept):
        for shingle in found:
            posting.setdefault(shingle, []).append(number)
    pairs = {(a, b) for rows in posting.values() for i, a in enumerate(rows) for b in rows[i + 1 :]}
    crossing = [(a, b) for a, b in pairs if kept[a][0] != kept[b][0]]
    assert len(kept) > 900
    assert len(crossing) > 300  # pairs that share a shingle at all
    assert max(len(kept[a][1] & kept[b][1]) / len(kept[a][1] | kept[b][1]) for a, b in crossing) < 0.7


@pytest.mark.costly
@pytest.mark.parametrize("other", [(3, "random"), pytest.param((2, "1"), marks=pytest.mark.slow)])
def test_worker_processes_and_hash_seeds_change_no_byte(workspace, other):
    """The scripts as DVC runs them; processes are started."""
    root = workspace / "run"
    for name in ("src", "stages"):
        shutil.copytree(REPOSITORY / name, root / name)
    parallel = root / "src/codex_ml/core/parallel.py"  # a corpus of any size is worth processes
    text, lowered = re.subn(r"(?m)^SMALL = [^#\n]*", "SMALL = 0  ", parallel.read_text("utf-8"))
    assert lowered == 1
    parallel.write_text(text, "utf-8")
    shutil.copyfile("dvc.yaml", root / "dvc.yaml")
    shutil.copyfile(REPOSITORY / "pyproject.toml", root / "pyproject.toml")
    shutil.copytree("data", root / "data")
    (root / "data/raw").mkdir()
    dice = random.Random(3)
    words = [f"word{i}" for i in range(5000)]
    with (root / "data/raw/big.jsonl").open("w", encoding="utf-8") as lines:
        for _ in range(300):
            lines.write(json.dumps(record(" ".join(dice.choices(words, k=100)))) + "\n")
    found = set()
    for workers, seed in ((1, "0"), other):
        params = {
            "ingest": {"sources": [{"kind": "jsonl", "path": "data/raw/big.jsonl"}]},
            "split": {**SPLIT, "policy": "off"},
            "runtime": {"workers": workers, "progress": "off"},
        }
        (root / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
        for name in ("ingest", "split"):
            environment = {**os.environ, "PYTHONHASHSEED": seed}
            done = subprocess.run(
                [sys.executable, f"stages/{name}.py"], cwd=root, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
        names = [root / "data/corpus/documents.parquet", *(root / "data/splits" / name for name in OUTPUTS)]
        found.add(tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in names))
    assert len(found) == 1


def test_redaction_is_applied_before_the_split_is_published_and_never_again(workspace):
    key = "gh" + "p_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1eF3hJ5"  # pragma: allowlist secret
    records = corpus(1, 60) + [
        record(f"token = '{key}' # {i} " + " ".join(f"x{i}y{j}" for j in range(20))) for i in range(9)
    ]
    splits([records])
    everything = b"".join(file.read_bytes() for file in Path("data/splits").iterdir())
    published = [text for part in PARTS for text in texts(part)]
    marks = {mark for text in published for mark in re.findall(r"<SECRET:github-token:[0-9a-f]{8}>", text)}
    assert len(marks) == 1
    assert key.encode() not in everything
    assert not any(key in text for text in published)
    findings = [json.loads(line) for line in Path("data/splits/findings.ndjson").read_text().splitlines()]
    assert {f["placeholder"] for f in findings} == marks
    before = where()
    splits([[record(text) for text in published]])
    assert set(where()) == set(before)


def test_a_secret_in_an_id_is_in_no_file_of_the_splits(workspace):
    key = "gh" + "p_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1eF3hJ5"  # pragma: allowlist secret
    records = [record(text["text"], id=f"{key}/{i}") for i, text in enumerate(corpus(3, 60))]
    records[7]["licence"] = "GPL-3.0-only"
    splits([records])
    everything = b"".join(file.read_bytes() for file in Path("data/splits").glob("*.ndjson"))
    assert key.encode() not in everything
    for name in ("dropped", "findings"):
        rows = map(json.loads, Path(f"data/splits/{name}.ndjson").read_text().splitlines())
        ids = [row["id"] for row in rows]
        assert ids and all(re.fullmatch(r"<SECRET:github-token:[0-9a-f]{8}>/\d+", found) for found in ids), name
    assert not any(
        key in found for part in PARTS for found in pq.read_table(f"data/splits/{part}.parquet")["id"].to_pylist()
    )


def test_policy_off_is_recorded_and_leaves_the_text(workspace, caplog):
    mail = "write to jane.doe@" + "corp-mail.org please"
    records = [*corpus(2, 60), *(record(f"{mail} {i}") for i in range(5))]
    splits([records], policy="off")
    assert json.loads(Path("reports/split/metrics.json").read_text())["policy"] == "off"
    assert json.loads(Path("reports/split/manifest.json").read_text())["policy"]["state"] == "off"
    assert sum(mail in text for text in where()) == 5
    assert "split.policy is off" in caplog.text


def test_block_drops_the_whole_document(workspace):
    policy = Path("data/policy.yaml")
    text = policy.read_text(encoding="utf-8")
    start = text.index("- id: github-token")
    policy.write_text(text[:start] + text[start:].replace("action: redact", "action: block", 1), encoding="utf-8")
    key = "gh" + "p_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1eF3hJ5"  # pragma: allowlist secret
    splits([[*corpus(1, 60), record(f"x = '{key}'")]])
    assert not any("SECRET" in text for text in where())
    assert '"blocked by policy"' in Path("data/splits/dropped.ndjson").read_text()


def test_chat_records_stay_equal_as_json(workspace):
    calls = [{"id": "c1", "function": {"name": "f", "arguments": {"city": "Ede", "n": None}}}]
    chats = [
        {"messages": [{"role": "user", "content": f"ask {i}"}, {"role": "assistant", "content": None, "tool_calls": calls}],
         "tools": [{"name": "f", "parameters": {"type": "object", "properties": {"city": {}}}}], "licence": "MIT", "n": i}
        for i in range(40)
    ]  # fmt: skip
    splits([chats])
    rows = [row for part in PARTS for row in pq.read_table(f"data/splits/{part}.parquet").to_pylist()]
    back = [
        {
            "messages": json.loads(r["messages"]),
            "tools": json.loads(r["tools"]),
            "licence": "MIT",
            **json.loads(r["meta"]),
        }
        for r in rows
    ]
    assert sorted(back, key=lambda r: r["n"]) == chats


@pytest.mark.shipped
def test_a_secret_recognised_only_by_its_field_name_is_redacted(workspace):
    shutil.copyfile(REPOSITORY / "data/policy.yaml", "data/policy.yaml")  # all rules
    value, other = "k3yT0nic" + "Water99x", "Zr8qLw2x" + "Nc5vTg7b" + "Hy4mJd6p"
    named = [
        {"pass" + "word": value, "name": "city"},
        {"api_" + "key": other},
        {"a": [{"b": {"auth_to" + "ken": [other, other]}}]},
        {"env": [{"name": "DB_PASS" + "WORD", "value": value}]},
        {"phone": "(415) 723-8891"},
    ]
    plain = {
        "token_type": "bearer",
        "keyword": "photosynthesis",
        "monkey": value[:4],
        "password": "changeme",
        "note": value,
    }
    talk = [{"role": "user", "content": "pay"}, {"role": "assistant", "content": None}]
    chats = [
        {"messages": [talk[0], {**talk[1], "tool_calls": [{"function": {"name": f"f{n}", "arguments": dict(one)}}]}],
         "licence": "MIT", "extra": one}
        for n, one in enumerate([*named, plain])
    ]  # fmt: skip
    splits([[*corpus(1, 60), *chats]])
    rows = [
        row for part in PARTS for row in pq.read_table(f"data/splits/{part}.parquet").to_pylist() if row["messages"]
    ]
    assert len(rows) == len(chats)
    found = {}
    for row in rows:
        call = json.loads(row["messages"])[1]["tool_calls"][0]["function"]
        found[call["name"]] = json.dumps(call["arguments"])
        assert json.loads(row["meta"])["extra"] == call["arguments"]
    for number, one in enumerate(named):
        assert json.dumps(one) != found[f"f{number}"]
        assert not any(text in found[f"f{number}"] for text in (value, other, "723-8891")), one
    assert found["f5"] == json.dumps(plain)
    lines = Path("data/splits/findings.ndjson").read_text().splitlines()
    assert all(json.loads(line)["column"] == 1 and json.loads(line)["line"] == 1 for line in lines)


def test_every_document_has_a_verdict_and_the_manifest_counts_them(workspace):
    records = [*corpus(4, 80), record("GPL text one two three four"), record("    "), {"text": "no licence here"}]
    records[80]["licence"] = "GPL-3.0-only"
    splits([records], unknown_licence="drop")
    about = json.loads(Path("reports/split/manifest.json").read_text())
    kept = sum(part["documents"] for part in about["splits"].values())
    assert about["documents"] == 82
    assert kept + sum(about["dropped"].values()) == 82
    assert (about["dropped"]["licence not allowed"], about["dropped"]["licence unknown"]) == (1, 1)
    for part in PARTS:
        file = Path("data/splits", f"{part}.parquet").read_bytes()
        assert about["splits"][part]["sha256"] == hashlib.sha256(file).hexdigest()
        assert about["splits"][part]["licences"] == {"MIT": about["splits"][part]["documents"]}


def test_folds_cover_everything_but_test_once(workspace):
    records = corpus(6, 120)
    held_out, validated = [], []
    for fold in range(4):
        splits([records], folds=4, fold=fold)
        held_out.append(sorted(texts("test")))
        validated += texts("val")
    assert len(set(map(tuple, held_out))) == 1
    assert len(validated) == len(set(validated))
    assert set(validated) == set(where()) - set(held_out[0])


def test_croissant_is_accepted_and_readable_by_its_official_library(workspace):
    import mlcroissant

    splits([corpus(7, 60)])
    dataset = mlcroissant.Dataset(jsonld="data/splits/croissant.json")
    assert not dataset.metadata.issues.errors
    for part in PARTS:
        found = [row[f"{part}/text"].decode() for row in dataset.records(part)]
        assert found == texts(part)


def test_benchmark_items_are_kept_out_of_training(workspace):
    item = " ".join(f"solve{i}" for i in range(20))
    line = json.dumps({"task_id": "toy/1", "prompt": item, "canonical_solution": "return " + " ".join("abcdefgh")})
    Path("data/benchmarks/toy.jsonl").write_text(line + "\n", encoding="utf-8")
    records = [*corpus(8, 60), record(f"intro words here {item.upper()} and more")]
    splits([records], benchmarks=[{"path": "data/benchmarks/toy.jsonl"}])
    assert not any(item.upper() in text for text in where())
    found = [json.loads(row) for row in Path("data/splits/overlaps.ndjson").read_text().splitlines()]
    assert [(f["benchmark"], f["item"], f["start"]) for f in found] == [("toy.jsonl", "toy/1", 17)]
    splits([records], benchmarks=[{"path": "data/benchmarks/toy.jsonl"}], contaminated="report")
    assert any(item.upper() in text for text in where())


def test_a_corpus_without_a_passing_document_is_one_message_and_no_output(workspace):
    with pytest.raises(UserError, match=r"none of the 3 documents passed \(3 licence not allowed\)"):
        splits([[record(f"text {i}", licence="GPL-3.0-only") for i in range(3)]])
    assert not Path("data/splits").exists()
    assert [file.name for file in Path("data").iterdir() if file.name.startswith(".")] == []


def test_your_own_sources_with_the_published_key_give_a_warning(workspace, caplog):
    logger = logging.getLogger("codex_ml")
    logger.addHandler(caplog.handler)
    try:
        splits([corpus(1, 60)])
        [line] = {r.getMessage() for r in caplog.records if "redaction_key" in r.getMessage()}
        assert "codex-ml policy new-key" in line
        caplog.clear()
        Path("data/redaction_key").write_text("0123456789abcdef0123456789abcdef")
        splits([corpus(1, 60)])
        assert not [r for r in caplog.records if "redaction_key" in r.getMessage()]
    finally:
        logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("letters", ["\u0e01\u0e27\u0e19\u0e2a\u0e23\u0e14", "的一是不了人我在有他这中大来上国"])
def test_near_copies_without_spaces_do_not_cross_the_splits(workspace, letters):
    dice = random.Random(4)
    whole = ["".join(dice.choices(letters, k=200)) for _ in range(40)]
    splits([[record(text) for text in whole], [record(text + dice.choice(letters)) for text in whole]])
    assert len(where()) == 40
    assert {text[:200] for text in where()} == set(whole)


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_of_an_augmented_copy_reaches_val_or_test(workspace, seed, monkeypatch):
    """Augmenters that know the whole corpus return other documents, as they are or changed a little."""
    records = corpus(seed, 60, prefix="code")
    known = [record["text"] for record in records]

    def another(text, language, key):
        return random.Random(key).choice(known)

    def nearly_another(text, language, key):
        dice = random.Random(key)
        words = dice.choice(known).split()
        words[dice.randrange(len(words))] = "changed"
        return " ".join([*words, *(f"own{number}" for number in range(dice.randrange(20)))])

    before = splits([records])
    monkeypatch.setattr(Stage, "check_plugins", lambda *_: None)  # no lock records what a test registers
    with registered("augmenters", "another", another), registered("augmenters", "nearly", nearly_another):
        after = splits([records], augment=["another", "nearly"])
    same = ("val.parquet", "test.parquet", "dropped.ndjson", "new_ledger.txt", "contradictions.ndjson")
    assert [before[name] == after[name] for name in same] == [True] * len(same)
    counts = json.loads(Path("data/splits/augmented.json").read_text())
    assert min(counts["another"]["copies"], counts["another"]["held_out"], counts["nearly"]["held_out"]) > 0
    assert not Path("data/splits/held_out").exists()
    train, held_out = texts("train"), [*texts("val"), *texts("test")]
    assert not set(train) & set(held_out)
    for text in held_out:
        theirs = shingles(text)
        for other in train:
            own = shingles(other)
            assert 10 * len(own & theirs) < 7 * len(own | theirs) or not own | theirs
