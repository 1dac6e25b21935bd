"""Nothing of a secret that a failing trial prints reaches a file of the tree or the screen."""

from __future__ import annotations

import base64
import random
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import whole_app
from codex_ml.cli.sweeping import study, trial_experiment, trial_output
from codex_ml.cli.sweeping.trial_output import cleaned, keep_output, unnamed_file

TOKEN = "ghp_" + "A1b2C3d4E5f6G7h8I9" * 2 + "kL"  # a rule of tests/project redacts it pragma: allowlist secret
BODY = [base64.b64encode(random.Random(line).randbytes(48)).decode() for line in range(20)]
KEY = "\n".join(["-----BEGIN " + "RSA PRIVATE KEY-----", *BODY, "-----END " + "RSA PRIVATE KEY-----"])
RULE = """\
  - id: private-key
    description: A private key, whose lines say nothing by themselves
    kind: secret
    severity: high
    action: redact
    literals: ['-----BEGIN']
    pattern: '-----BEGIN[A-Z ]+-----[\\s\\S]{1,3000}?-----END[A-Z ]+-----'
"""
STAGE = """\
import sys
print("begin", flush=True)
print(sys.argv[1], file=sys.stderr)
print("error: cannot log in with " + sys.argv[2], file=sys.stderr)
sys.exit("ERROR: failed to run: python -P stages/train.py, exited with 1")
"""


@pytest.fixture
def policy(workspace: Path) -> Path:
    """A workspace whose policy has a rule over several lines, too."""
    file = workspace / "data/policy.yaml"
    file.write_text(file.read_text().replace("rules:\n", f"rules:\n{RULE}"))
    return workspace


@pytest.fixture
def project(policy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed project in which each trial is a process that prints two secrets and fails."""
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "start"]):
        subprocess.run(["git", "-c", "user.name=T", "-c", "user.email=t@example.org", *words], check=True)
    monkeypatch.setattr(
        trial_experiment, "command", lambda launch, target: [sys.executable, "-c", STAGE, KEY, f"{TOKEN} please"]
    )
    return policy


def sweep(*arguments: str) -> tuple[int, str, str]:
    settings = ("--set", "train.lr=choice(1e-3,2e-3,3e-3)", "--method", "grid", "--name", "s")
    done = CliRunner().invoke(whole_app(), ["sweep", *settings, *arguments])
    return done.exit_code, done.stdout, done.stderr


def assert_clean(project: Path, *texts: str) -> None:
    files = [file for file in project.rglob("*") if file.is_file()]
    for data in [*texts, *(file.read_bytes().decode("latin-1") for file in files)]:
        assert TOKEN[:12] not in data
        assert not [line for line in BODY if line[:12] in data]
    assert project / "logs/sweeps/s/journal.ndjson" in files


@pytest.mark.parametrize("json", [[], ["--json"]])
def test_a_failing_trial_shows_and_stores_no_secret(project: Path, json: list[str]) -> None:
    code, out, err = sweep("--trials", "2", *json)
    assert code == 0
    assert_clean(project, out, err)
    log = Path("logs/sweeps/s/000.log").read_text().splitlines()
    assert log[0] == "begin"
    assert log[1].startswith("<SECRET:private-key:")
    assert log[2].startswith("error: cannot log in with <SECRET:github-token:")
    assert log[2].endswith("> please")
    assert "dvc ended with 1: error: cannot log in with <SECRET:github-token:" in (out if json else err)


def test_a_sweep_whose_trials_all_fail_shows_and_stores_no_secret(project: Path) -> None:
    code, out, err = sweep()
    assert code == 1
    assert_clean(project, out, err)
    assert err.splitlines()[-1].startswith("error: the first 3 trials failed, so the sweep stops; the last: dvc ended")


def test_an_interrupted_trial_stores_no_secret(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = trial_experiment._wait

    def interrupted(*arguments: object) -> None:
        wait(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(trial_experiment, "_wait", interrupted)
    code, out, err = sweep()
    assert code == 130
    assert_clean(project, out, err)
    assert Path("logs/sweeps/s/000.log").read_text().startswith("begin\n<SECRET:private-key:")


def test_without_a_usable_policy_nothing_of_the_output_is_kept(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data/policy.yaml").write_text("rules: 3\n")
    subprocess.run(["git", "-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-qam", "x"], check=True)
    code, out, err = sweep()
    assert code == 1
    assert_clean(project, out, err)
    assert Path("logs/sweeps/s/000.log").read_text().startswith("withheld, because the policy cannot be loaded: ")
    assert "trial 0 did not run, and is not recorded" in err


def test_why_a_trial_is_refused_shows_no_secret(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "refusal", lambda params: f"params.yaml: {TOKEN} is not a number")
    code, out, err = sweep("--json", "--trials", "1")
    assert (code, "params.yaml: <SECRET:github-token:" in err) == (2, False)  # none can run: the user's own input
    monkeypatch.setattr(study.Study, "refuse_impossible", lambda self, trials: None)
    code, out, err = sweep("--json", "--trials", "1")
    assert code == 0
    assert_clean(project, out, err)
    assert '"why": "params.yaml: <SECRET:github-token:' in out


def test_a_long_output_keeps_its_end_and_no_half_of_a_value(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_output, "MOST", 2000)
    monkeypatch.setattr(trial_output, "BEFORE", 3000)
    line = "a line of the log\n"
    for size in range(0, 6000, 500):
        with unnamed_file() as file:
            whole = line * 100 + KEY + "\n" + line * (size // len(line)) + "the end\n"
            file.write(whole.encode())
            file.flush()
            text = cleaned(file.fileno())
        assert not [each for each in BODY if each[:12] in text], size
        assert text.endswith("the end\n")
        assert text.startswith(f"(the first {len(whole) - 2000} bytes are left out)\n") == (len(whole) > 5000)
        assert len(text) < (2060 if len(whole) > 5000 else 5000)


def test_the_output_has_no_name_and_a_child_goes_on_where_it_was(workspace: Path) -> None:
    before = set(Path().rglob("*"))
    with unnamed_file() as file:
        child = [sys.executable, "-c", "import sys; print('one', flush=True); input(); print('two\\x1b[0m\\rthree')"]
        process = subprocess.Popen(child, stdin=subprocess.PIPE, stdout=file)
        while not cleaned(file.fileno()):
            pass
        assert set(Path().rglob("*")) - before <= {Path(".cache")}
        process.communicate(b"\n")
        assert keep_output(file, Path("log")) == Path("log").read_text() == "one\ntwo\\x1b[0m\nthree\n"
    assert not list(Path(".cache").iterdir())
