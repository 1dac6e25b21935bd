"""The command line: one line an answer, JSON for machines, exit codes 0, 1 and 2."""

import json
import sys
from pathlib import Path

import pytest

from codex_ml import __version__, cli


@pytest.fixture
def run(capsys, monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["codex-ml", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, captured.err

    return run


def test_the_version(run):
    assert run("--version") == (0, f"{__version__}\n", "")


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    for command in ("check", "verify", "lineage", "schema", "tokenizer", "hook", "pack"):
        assert f" {command} " in out


@pytest.mark.parametrize("arguments", [("no-such-command",), ("lineage",), ("verify", "--no-such-option")])
def test_wrong_use_ends_with_2(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage:" in err


def test_verify_prints_the_chain(chain, run):
    code, out, err = run("verify", "models/model")
    lines = out.splitlines()
    assert (code, err, lines[-1]) == (0, "", "verify: 18 links hold")
    assert lines[0].split()[:3] == ["train", "output", "models/model"]
    assert "fetch         source  a==1.0  " in out


def test_verify_prints_json_a_line_for_machines(chain, run):
    code, out, _ = run("verify", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, len(rows)) == (0, 18)
    assert all(row.keys() == {"stage", "role", "path", "md5"} for row in rows)


def test_verify_ends_with_1_at_the_first_broken_link(chain, run):
    chain.write("data/splits/train.bin", b"other")
    code, out, err = run("verify")
    assert code == 1
    assert err.startswith("error: train: input data/splits/train.bin was changed after the run; ")
    assert "links hold" not in out


def test_a_path_may_be_absolute_when_it_lies_here(chain, run):
    assert run("verify", str(chain.folder / "data/raw/sample"))[1].endswith("verify: 7 links hold\n")


def test_a_path_elsewhere_or_a_folder_elsewhere_ends_with_2(chain, run, tmp_path, monkeypatch):
    outside = str(tmp_path / "x")
    assert run("verify", outside) == (2, "", f"error: {outside} lies outside this repository\n")
    monkeypatch.chdir(tmp_path)
    message = "error: no dvc.yaml here; run this from the repository's top folder\n"
    assert run("lineage", "models/model") == (2, "", message)


def test_lineage_is_text_for_people_and_json_for_machines(chain, run):
    code, out, _ = run("lineage", "models/model")
    assert code == 0
    assert out.splitlines()[0] == "train: The train"
    assert '              params  {"seed": 7, "train": {"lr": 0.0003}}' in out.splitlines()
    code, out, _ = run("lineage", "models/model", "--json")
    assert [step["stage"] for step in json.loads(out)] == ["train", "split", "fetch"]


def test_names_cannot_drive_the_terminal(chain, run):
    chain.write("dvc.yaml", Path("dvc.yaml").read_bytes().replace(b"The train", b"The \\u001b[31mtrain"))
    assert "\x1b" not in run("lineage", "models/model")[1]


def test_debug_shows_the_traceback(chain, run):
    code, _, err = run("verify", "models/other", "--debug")
    assert code == 2
    assert err.startswith("Traceback")


def test_check_says_that_all_is_well(workspace, run, monkeypatch):
    from codex_ml import check

    monkeypatch.setattr(check, "problems", lambda params, stages: iter(()))
    assert run("check") == (0, "check: params.yaml, dvc.yaml and the workspace are in order\n", "")


def test_a_full_output_ends_with_1(run_python):
    with Path("/dev/full").open("w") as full:
        done = run_python("-m", "codex_ml", "schema", capture_output=False, stdout=full, stderr=-1)
    assert done.returncode == 1
    assert done.stderr == "error: the disk is full; free some space and run the same command again\n"
