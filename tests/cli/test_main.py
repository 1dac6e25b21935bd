"""The command line: one line per answer, JSON for machines, exit codes 0, 1 and 2."""

import json
import re
import sys
from pathlib import Path

import pytest

from codex_ml import __version__
from codex_ml.cli import main as cli
from codex_ml.core.hashing import hash_path


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


@pytest.mark.parametrize("words", [("runs",), ("generate", "x"), ("evaluate", "--model", "m"), ("export", "gguf")])
def test_a_command_refuses_a_module_of_pythonpath_before_any_work(workspace, run, tmp_path, monkeypatch, words):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/safetensors.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "theirs"))
    why = "Python would import it in place of the module safetensors; unset PYTHONPATH"
    assert run(*words) == (2, "", f"error: {tmp_path}/theirs/safetensors.py: {why}\n")


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


def test_verify_prints_one_json_object_whether_or_not_the_chain_holds(chain, run):
    code, out, err = run("verify", "--json")
    found = json.loads(out)
    assert (code, err, found["holds"], found["problem"], len(found["links"])) == (0, "", True, None, 18)
    assert all(row.keys() == {"stage", "role", "path", "md5"} for row in found["links"])
    chain.write("data/splits/train.bin", b"other")
    code, out, err = run("verify", "--json")
    broken = json.loads(out)
    assert (code, broken["holds"], broken["links"]) == (1, False, found["links"][:2])
    shown = re.sub(r"\b[0-9a-f]{32}\b", "...", broken["problem"])  # without a policy, what may be a key is not shown
    assert err == f"error: {shown}\n" != f"error: {broken['problem']}\n"
    assert broken["problem"].startswith("train: input data/splits/train.bin was changed after the run; ")


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
    message = f"error: no dvc.yaml beside src/codex_ml in {tmp_path} or above it; run this inside the repository\n"
    for command in (
        ("lineage", "models/model"),
        ("verify",),
        ("check",),
        ("ledger", "accept"),
        ("hook", "pipeline"),
        ("policy", "new-key"),
        ("pack", "show", "--row", "0"),
    ):
        assert run(*command) == (2, "", message)


def test_lineage_is_one_screen_for_people_more_with_all_and_json_for_machines(chain, run):
    code, out, _ = run("lineage", "models/model")
    lines = out.splitlines()
    assert code == 0 and len(lines) <= 24
    assert lines[0] == f"models/model  {hash_path(Path('models/model')).md5}"
    assert lines[1] == "commit  none: dvc.lock is not in Git"
    assert [line.split()[0] for line in lines[3::2]] == ["train", "split", "fetch"]
    assert "stages/train.py" not in out
    code, out, _ = run("lineage", "models/model", "--all")
    assert code == 0
    assert out.splitlines()[: len(lines)] == lines
    assert "train: The train" in out.splitlines()
    assert '              params  {"seed": 7, "train": {"lr": 0.0003}}' in out.splitlines()
    assert f"              dep     stages/train.py  {hash_path(Path('stages/train.py')).md5}" in out.splitlines()
    code, out, _ = run("lineage", "models/model", "--json")
    assert [step["stage"] for step in json.loads(out)] == ["train", "split", "fetch"]


def test_commands_work_from_a_subfolder_and_typed_paths_count_from_there(chain, run, monkeypatch):
    whole = {name: run(name, "models/model") for name in ("verify", "lineage")}
    assert whole["verify"][0] == whole["lineage"][0] == 0
    for folder, typed in (("models", "model"), ("models/model", "."), ("data/splits/sub", "../../../models/model")):
        for name in whole:
            monkeypatch.chdir(chain.folder / folder)
            assert run(name, typed) == whole[name], (folder, name)
    monkeypatch.chdir(chain.folder / "models")
    assert run("verify", "../../x") == (2, "", "error: ../../x lies outside this repository\n")
    monkeypatch.chdir(chain.folder / "models")
    assert run("verify", "models/model")[2].startswith("error: models/models/model is not an output of the pipeline; ")


def test_a_project_of_others_below_the_data_is_not_taken_for_the_top(chain, run, monkeypatch):
    chain.write("data/raw/mine/dvc.yaml", b"stages: {}")
    chain.write("data/raw/mine/params.yaml", b"")
    chain.lock()
    monkeypatch.chdir(chain.folder / "data/raw/mine")
    assert run("verify")[1].endswith("links hold\n")


def test_names_cannot_drive_the_terminal(chain, run):
    chain.write("dvc.yaml", Path("dvc.yaml").read_bytes().replace(b"The train", b"The \\u001b[31mtrain"))
    assert "\x1b" not in run("lineage", "models/model", "--all")[1]


def test_debug_shows_the_traceback(chain, run):
    code, _, err = run("verify", "models/other", "--debug")
    assert code == 2
    assert err.startswith("Traceback")


def test_check_says_that_all_is_well(workspace, run, monkeypatch):
    from codex_ml.cli.checks import workspace as checks

    monkeypatch.setattr(checks, "problems", lambda params, stages: iter(()))
    assert run("check") == (0, "check: params.yaml, dvc.yaml and the workspace are in order\n", "")


def test_a_full_output_ends_with_1(run_python):
    with Path("/dev/full").open("w") as full:
        done = run_python("-m", "codex_ml", "schema", capture_output=False, stdout=full, stderr=-1)
    assert done.returncode == 1
    assert done.stderr == "error: the disk is full; free some space and run the same command again\n"


INSTALLED = {"PYTHONPATH": str(Path(__file__).parents[1] / "guard")}  # verify refuses another library on PYTHONPATH
HEAD = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "codex_ml", *sys.argv[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
child.stdout.close()  # before a byte is read, which is how `head -0` ends
print(child.stderr.read().decode(), child.wait())
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",), ("schema",), ("verify",), ("lineage", "models/model", "--json"),
        *(pytest.param(arguments, marks=pytest.mark.slow) for arguments in (
            ("--version",), ("verify", "--json"), ("lineage", "models/model"), ("lineage", "models/model", "--all"),
            ("tokenizer", "--help"), ("hook", "--help"),
        )),
    ],
)  # fmt: skip
def test_output_that_head_cuts_is_not_an_error(chain, run_python, arguments):
    assert run_python("-c", HEAD, *arguments, env=INSTALLED).stdout == " 0\n"


def test_output_that_head_cuts_hides_no_failure(chain, run_python):
    chain.write("stages/fetch.py", b"# changed\n")  # the last link of many
    done = run_python("-c", HEAD, "verify", env=INSTALLED).stdout
    assert done.startswith("error: fetch: code stages/fetch.py was changed after the run") and done.endswith(" 1\n")


@pytest.mark.parametrize(
    "damage",
    [
        *(b"def broken(:\n", b"import no_such_module\n"),
        *(pytest.param(damage, marks=pytest.mark.slow) for damage in (b"strx\n", b"1 / 0\n", b"\xff\n")),
    ],
)
def test_a_damaged_library_is_named_by_its_file(tmp_path, repository, run_python, damage):
    import shutil

    shutil.copytree(repository / "src", tmp_path / "src")
    with (tmp_path / "src/codex_ml/cli/history/listing.py").open("ab") as file:
        file.write(damage)
    done = run_python("-m", "codex_ml", "verify", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "src")})
    assert done.returncode == (2 if damage in (b"def broken(:\n", b"\xff\n") else 1)
    assert done.stderr.startswith("error: src/codex_ml/cli/history/listing.py:") and done.stderr.count("\n") == 1
    debug = run_python("-m", "codex_ml", "verify", "--debug", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "src")})
    assert debug.stderr.startswith("Traceback")


ANYWHERE = {
    "compare",
    "plugins list",
    "schema",
    "hook config",
    "hook secrets",
    "hook large-files",
    "hook env-files",
    "hook yaml",
    "hook line-endings",
    "hook conflicts",
}


def test_asking_for_the_commands_again_adds_none():
    """A second call in one process gives the same groups, and none twice."""
    names = [[group.name for group in cli.whole_app().registered_groups] for _ in range(2)]
    assert names[0] == names[1]
    assert len(set(names[1])) == len(names[1]) > 0


def test_every_command_that_reads_the_repository_says_that_there_is_none(tmp_path, run, monkeypatch):
    """And so works from a subfolder: it looks for the top folder first. A command that is added is found here."""
    import typer

    monkeypatch.chdir(tmp_path)
    group = typer.main.get_command(cli.whole_app())
    names = [
        [name, *below]
        for name, command in group.commands.items()
        for below in ([[inner] for inner in command.commands] if hasattr(command, "commands") else [[]])
    ]
    extra = {"lineage": ["x"], "pack show": ["--row", "0"], "ledger forget": ["x", "--reason", "y"]}
    extra |= {"init": ["sft"], "sweep": ["--set", "train.lr=choice(1,2)"]}
    extra |= {"evaluate": ["--model", "x", "--data", "x"], "audit": ["--model", "x"]}
    silent = set()
    for words in names:
        name = " ".join(words)
        if name in ANYWHERE or words[0] in ("tokenizer", "export"):  # these take files and folders of any place
            continue
        code, _, err = run(*words, *extra.get(name, []))
        if code != 2 or "run this inside the repository" not in err:
            silent.add(name)
    assert silent == set()
