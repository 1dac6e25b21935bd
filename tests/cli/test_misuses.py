"""Misuses of the commands: one line that says what was found and what to do, exit code 2, and nothing is written.

More of them are beside the commands: port taken, wrong token, body of 100 MB, prompt over the context
(tests/cli/test_serve.py, tests/serve/), an entry point that raises at import (tests/cli/test_plugin_commands.py), the
journal of another study (tests/cli/sweeping/), architectures that GGUF cannot hold (tests/cli/test_export.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import whole_app
from codex_ml.cli.result_target import refuse_tool_folder
from codex_ml.core.errors import UserError


def _edit(name: str, old: str, new: str) -> Callable[[], None]:
    def edit() -> None:
        text = Path(name).read_text(encoding="utf-8")
        assert old in text
        Path(name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


def _write(name: str, data: bytes) -> Callable[[], None]:
    def write() -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)

    return write


def _pickle_only() -> None:
    _write("pickled/pytorch_model.bin", b"\x80\x02}q\x00.")()
    _write("pickled/config.json", b'{"model_type": "llama"}')()


def _no_pipeline() -> None:
    Path("dvc.yaml").unlink()


def _params_folder() -> None:
    Path("params.yaml").unlink()
    Path("params.yaml").mkdir()


NOTHING = _write("unused", b"")
# (what is prepared, the words after codex-ml, parts of the line)
MISUSES = [
    # init, params, plan, schema
    (NOTHING, "init nothing", "there is no recipe 'nothing'; there are: pretrain, continue, sft, lora, evaluate, audit"),
    (NOTHING, "init sft", "params.yaml exists; --force replaces it, and --out FILE writes another file"),
    (NOTHING, "init sft --out no/where.yaml", "--out no/where.yaml: expected the name of a file in a folder that exists"),
    (_edit("params.yaml", "version: 1", "version: 99"), "params upgrade", "params.yaml: version 99 is newer than"),
    (_edit("params.yaml", "version: 1", "version: 99"), "check", "params.yaml: version 99 is newer than"),
    (_edit("params.yaml", "version: 1", "version: 1\nbatch_size: 4"), "check", "did you mean train.micro_batch_size?"),
    (_write("params.yaml", b"\xff\x00"), "plan", "params.yaml is not UTF-8 (byte 0); save it as UTF-8"),
    (_params_folder, "check", "params.yaml is not a regular file; put the file of that name there"),
    (NOTHING, "plan trian", "dvc.yaml has no stage trian; its stages: fetch, ingest, split, "),
    (_no_pipeline, "plan", "run this inside the repository"),
    (NOTHING, "schema --of serve", "--of serve: no such command prints JSON; these do: audit, "),
    # plug-ins
    (NOTHING, "plugins list --kind metric", "there is no kind 'metric' of plug-ins; there are: architectures, "),
    (_edit("params.yaml", "kind: byte_bpe", "kind: no_such"), "check", "no_such"),
    (_edit("data/policy.yaml", "detectors: []", "detectors: [no_such]"), "plugins lock", "'no_such' is not installed"),
    # logs and runs
    (NOTHING, "logs --stage trian", "--stage: dvc.yaml has no stage 'trian'; it has fetch, "),
    (NOTHING, "logs --run ../../x", "found '../../x'; `codex-ml runs` lists them"),
    (NOTHING, "logs --level loud", "--level: expected debug, info, warning, error; found 'loud'"),
    (NOTHING, "runs --stage ../x", "--stage: dvc.yaml has no stage '../x'; it has fetch, "),
    (NOTHING, "track --stage train", "--stage: expected evaluate or safety_audit; found 'train'"),
    (NOTHING, "track", "runtime.trackers names no tracker; docs/tracking.md lists them"),
    # sweep and folds
    (NOTHING, "sweep --set train.lr=choice() --trials 2", "a value is empty; write null or '' for it"),
    (NOTHING, "sweep --set train.lr=choice(2020-01-01,1) --trials 2", "2020-01-01 is a date, which DVC cannot set"),
    (NOTHING, "sweep --set train.lr=uniform(2,1) --trials 2", "LOW must be below HIGH, and both finite"),
    (NOTHING, "sweep --set train.lr=uniform(nan,1) --trials 2", "LOW must be below HIGH, and both finite"),
    (NOTHING, "sweep --set train.lr=uniform(1,2)", "give --trials, --minutes, or both"),
    (NOTHING, "sweep --set train.lr --trials 2", "--set train.lr: expected KEY=DISTRIBUTION with uniform(LOW,HIGH), "),
    (NOTHING, "sweep --set train.lr=choice(1,2) --method anneal", "--method anneal: expected grid, random, sobol, tpe"),
    (NOTHING, "sweep --set runtime.device=choice(cpu,cuda)", "a key of runtime changes no result"),
    (NOTHING, "sweep --set train.lr=choice(1,2) --trials 2", "experiments need one; commit the project first"),
    (NOTHING, "folds 1", "1 folds: expected 2 to 1000"),
    (NOTHING, "folds 5 -S split.folds=3", "the command sets split.folds itself"),
    # generate
    (NOTHING, "generate a --file b", "the prompt is given twice"),
    (NOTHING, "generate --file nowhere.txt", "nowhere.txt does not exist; --file names a text file"),
    (_write("image.png", b"\x89PNG\xff"), "generate --file image.png", "image.png is not UTF-8 (byte 0); a prompt is text"),
    (NOTHING, "generate a --stream --json", "--json prints one object; leave one of them out"),
    (NOTHING, "generate a --temperature nan", "--temperature is nan; allowed: 0 (greedy) or a finite number"),
    (NOTHING, "generate a --temperature=-1", "--temperature is -1.0; allowed: 0 (greedy) or a finite number"),
    (NOTHING, "generate a --top-p 0", "--top-p is 0.0; allowed: above 0 and at most 1"),
    (NOTHING, "generate a --top-k=-1", "--top-k is -1; allowed: 0 (all tokens) or a positive number"),
    (NOTHING, "generate a --max-tokens 0", "--max-tokens 0: at least 1 token must be written"),
    (NOTHING, "generate a --model nowhere", "nowhere does not exist; --model names a folder of a model or a GGUF file"),
    (_pickle_only, "generate a --model pickled", "pytorch_model.bin: .bin files can run code when they are loaded"),
    # serve
    (NOTHING, "serve --host nowhere.example", "is not an address; give localhost, or an address such as 127.0.0.1"),
    (NOTHING, "serve --upstream nowhere", "--upstream must be http://HOST:PORT"),
    (NOTHING, "serve --model a --upstream http://127.0.0.1:1", "give one of them"),
    (NOTHING, "serve --token-file nowhere", "--token-file nowhere cannot be read (No such file or directory)"),
    # export and tokenizer
    (NOTHING, "export gguf --out x.gguf --model nowhere", "nowhere is not a folder; name the folder of a model"),
    (NOTHING, "export merged --out data", "data already exists; give a new name"),
    (NOTHING, "export merged --out new --model nowhere", "nowhere is not a folder; name the folder of a model"),
    (NOTHING, "export gguf --out .dvc/cache/x.gguf", "is in .dvc, the folder of DVC; name a folder outside of it"),
    (NOTHING, "export tokenizer --out .git/new", "is in .git, the folder of Git; name a folder outside of it"),
    (_pickle_only, "export adapter --out new --model pickled", "`codex-ml export merged` writes them"),
    (NOTHING, "tokenizer encode", "models/tokenizer/tokenizer.json is missing; `dvc repro tokenizer` makes it"),
    (NOTHING, "tokenizer validate -t nowhere", "nowhere/tokenizer.json is missing; name the folder of a whole tokenizer"),
    (NOTHING, "tokenizer decode 5 --lines", "--lines reads the ids from standard input; give no ids as arguments"),
    # evaluate, audit, compare
    (NOTHING, "evaluate --model x --data x --out .dvc/cache/x", "is in .dvc, the folder of DVC; name a folder outside of it"),
    (NOTHING, "evaluate --model x --data x --out data", "--out data exists and is not a result folder; name a new folder"),
    (NOTHING, "evaluate --model x --data nowhere", "nowhere does not exist; name a file or a folder of documents"),
    (NOTHING, "evaluate --model x --data x -S stride=-8", "stride: input should be greater than or equal to 0; found -8"),
    (NOTHING, "audit --model nowhere", "--model nowhere does not exist; name a file or a folder that does"),
    (NOTHING, "audit --model x --size huge", "input should be 'small' or 'full'; found 'huge'"),
    (NOTHING, "compare a", "only a is named; name two results or more to compare"),
    (NOTHING, "compare a b", "a is not a folder, a Git revision or an experiment; `dvc exp list --all-commits`"),
    # what the pipeline wrote
    (_edit("params.yaml", "version: 1", "version: 1\nbatch_size: 4"), "accept-code", "did you mean train.micro_batch_size?"),
    (NOTHING, "verify", "dvc.lock is missing; run `make repro` first"),
    (NOTHING, "lineage ../x", "../x lies outside this repository"),
    (NOTHING, "pack show", "give --step N, --row R, or both: they choose what is shown"),
    (NOTHING, "pack show --row 0", "data/packed/pack.json is missing; `dvc repro pack` makes it"),
    (NOTHING, "ledger accept", "data/splits/new_ledger.txt is missing; `dvc repro split` makes it"),
    (NOTHING, "ledger forget --reason x", "give either --gone, or the ids, paths or contents to forget"),
    (NOTHING, "merge", "this folder is not in a Git repository with a commit, so there is nothing to merge"),
    (NOTHING, "policy try", "stdin is not UTF-8 (byte 0); convert it first"),
]  # fmt: skip
WRONG_USE = [  # Typer's own: Usage, where the help is, and what is wrong in a frame
    ("frobnicate", "No such command 'frobnicate'."),
    ("doctor --nosuch", "No such option: --nosuch"),
    ("packages nothing", "Got unexpected extra argument(s) (nothing)"),
    ("runs --last 0", "Invalid value for '--last': Input should be greater than or equal to 1"),
    ("generate a --seed=-1", "Invalid value for '--seed': Input should be greater than or equal to 0"),
    ("generate a --n 0", "Invalid value for '--n': Input should be greater than or equal to 1"),
    ("serve --port 99999", "Invalid value for '--port': Input should be less than or equal to 65535"),
    ("sweep --set train.lr=1 --trials=-3", "Invalid value for '--trials': Input should be greater than or equal to 1"),
    ("hook secrets nowhere", "Invalid value for 'files': file 'nowhere' does not exist."),
]


@pytest.fixture
def misuse(workspace, tree, monkeypatch):
    """Run a command, which must write nothing; returns what it says on stderr."""
    monkeypatch.setattr(sys, "addaudithook", lambda hook: None)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")  # so that it is set back

    def run(words: str) -> str:
        before = tree(workspace)
        done = CliRunner().invoke(whole_app(), words.split(), input=b"\xff\xfe")
        assert (done.exit_code, done.stdout) == (2, ""), done.output
        assert "Traceback" not in done.stderr
        assert tree(workspace) == before
        return str(done.stderr)

    return run


@pytest.mark.parametrize(("prepare", "words", "said"), MISUSES, ids=[words for _, words, _ in MISUSES])
def test_a_misuse_gives_one_clear_line_and_writes_nothing(misuse, prepare, words, said):
    prepare()
    line = misuse(words)
    assert line.startswith("error: ") and line.count("\n") == 1 and line.endswith("\n")
    assert said in line


@pytest.mark.parametrize(("words", "said"), WRONG_USE, ids=[words for words, _ in WRONG_USE])
def test_wrong_use_shows_the_usage_and_what_is_wrong(misuse, words, said):
    lines = misuse(words).splitlines()
    assert lines[0].startswith("Usage: ") and lines[1].endswith("--help' for help.")
    assert len(lines) == 5 and said in lines[3]


def test_every_group_of_commands_has_a_misuse():
    from .test_json_schemas import commands

    tried = {words.split()[0] for _, words, _ in MISUSES} | {words.split()[0] for words, _ in WRONG_USE}
    assert {name.split()[0] for name, _ in commands()} - tried == set()


def test_a_result_may_be_written_where_dvc_runs_an_experiment(workspace, monkeypatch):
    place = workspace / ".dvc/tmp/exps/tmp1"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    refuse_tool_folder(Path("reports/mine"))
    with pytest.raises(UserError, match=r"is in \.dvc, the folder of DVC"):
        refuse_tool_folder(workspace / ".dvc/cache/mine")
