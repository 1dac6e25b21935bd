"""params.yaml holds no secret and no `${...}`: `check` and every stage refuse it, naming the key and not the value."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import whole_app
from codex_ml.cli.param_texts import refuse_texts
from codex_ml.core.errors import UserError

KEY = "gh" + "p_" + "q8Vd2Lx5Tz7Rw3Nk9Jb4Hc6Mf1Sg0Yp2Aa3E"  # pragma: allowlist secret
IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
SOURCE = "ingest:\n  sources:\n  - kind: jsonl\n    path: data/raw/a.jsonl\n    {}: {}\n"


def refusal(text: str) -> str:
    Path("params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        refuse_texts()
    assert KEY not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", KEY),
        ("licence", f"LicenseRef-{KEY}"),
        ("path", f"data/raw/{KEY}/a.jsonl"),
        ("name", '"' + KEY.replace("ghp_", "\\x67hp_") + '"'),
        ("name", base64.b64encode(f"export TOKEN={KEY} ".encode()).decode()),
    ],
)
def test_a_secret_in_a_value_is_refused_by_its_key(workspace, key, value):
    text = SOURCE.replace("    path: data/raw/a.jsonl\n", "") if key == "path" else SOURCE
    line = 4 if key == "path" else 5
    said = refusal(text.format(key, value))
    assert said.startswith(
        f"params.yaml:{line}: ingest.sources.0.{key} holds a value that the rule github-token of data/policy.yaml forbids; "
    )


def test_a_secret_in_a_key_or_a_comment_is_refused_by_its_line(workspace):
    assert refusal(f"seed: 1\ntrain:\n  {KEY}: 1\n").startswith("params.yaml:3: a key of train holds a value that ")
    assert refusal(f"seed: 1\n# {KEY}\n").startswith(
        "params.yaml:2: the line holds a value that the rule github-token "
    )


@pytest.mark.parametrize(("name", "value", "text"), [("HOME", "/home/ann", "{}"), ("MINE", KEY, "a {} b")])
def test_the_value_of_a_variable_that_dvc_has_written_is_refused(workspace, monkeypatch, name, value, text):
    """`dvc exp run -S seed=4` replaces ${oc.env:HOME} in the whole file before a stage starts."""
    monkeypatch.setenv(name, value)
    said = refusal(f"seed: 4\nreport:\n  title: {text.format(value)}\n")
    assert said.startswith(f"params.yaml:3: report.title holds the value of {name}, as `dvc exp run -S` writes it ")


@pytest.mark.parametrize("escape", ["\\N", "\\L", "\\P"])
def test_an_end_of_line_that_breaks_dvc_lock_is_refused(workspace, escape):
    """DVC writes it as it is, and then no command reads dvc.lock."""
    said = refusal(SOURCE.format("name", f'"a{escape}b"'))
    assert said.startswith("params.yaml:5: ingest.sources.0.name holds an invisible end of line ")


def test_a_variable_that_is_no_secret_may_have_the_value_of_a_key(workspace, monkeypatch):
    monkeypatch.setenv("RUN", "baseline-2026-11")
    monkeypatch.setenv("SOURCE", "data/raw/tickets.jsonl")
    monkeypatch.setenv("DATA", "/mnt/corpus")
    lines = ("title: baseline-2026-11", "x: data/raw/tickets.jsonl", "y: /mnt/corpus")
    Path("params.yaml").write_text("report:\n" + "".join(f"  {line}\n" for line in lines))
    refuse_texts()


def test_an_experiment_on_a_commit_with_a_variable_is_refused(workspace, monkeypatch):
    """What DVC has written is no longer known; what it was made from is in the commit."""
    Path("params.yaml").write_text("report:\n  title: '${oc.env:X}'\n")
    for words in (["init", "-q"], ["add", "params.yaml"], [*IDENTITY, "commit", "-q", "-m", "a"]):
        subprocess.run(["git", *words], check=True)
    Path("params.yaml").write_text("report:\n  title: x\n")
    refuse_texts()
    monkeypatch.setenv("DVC_EXP_NAME", "some-name")
    with pytest.raises(UserError, match=r"the committed file holds \$\{\.\.\.\}, and `dvc exp run -S` "):
        refuse_texts()


@pytest.fixture
def own_policy(workspace, repository):
    """The repository's own policy, because the one of the tests knows neither addresses nor names."""
    shutil.copy(repository / "data/policy.yaml", "data/policy.yaml")


@pytest.mark.shipped
def test_personal_data_and_keys_of_data_are_accepted(own_policy):
    lines = [
        "# ask jane.roe" + "@acme-lab.org",
        "# the tracker is 81.2.69" + ".142",
        "author: jane.roe" + "@acme-lab.org",
        "uri: http://81.2.69" + ".142:5000",
        "# cache_key: md5",
        "cache_key: md5",
        "md5_key:\n  cache_key: md5:" + "0d41d8cd98f00b204e98",
        "# cache_key: " + "d41d8cd98f00b204e9800998ecf8427e",
    ]
    for line in lines:
        Path("params.yaml").write_text(f"seed: 1\n{line}\n", encoding="utf-8")
        refuse_texts()


@pytest.mark.shipped
def test_a_secret_beside_personal_data_or_in_several_lines_is_refused(own_policy):
    said = refusal(f"# jane.roe@acme-lab.org {KEY}\n")
    assert said.startswith("params.yaml:1: the line holds a value that the rule github-token ")
    body = "".join(f"#   {KEY[4 + line :] + KEY[4 : 4 + line]}\n" for line in range(4))
    said = refusal(f"seed: 1\n# -----BEGIN {'PRIVATE'} KEY-----\n{body}# -----END {'PRIVATE'} KEY-----\nreport: {{}}\n")
    assert said.startswith("params.yaml:4: the lines up to this one hold a value that the rule private-key of ")


def test_the_name_of_an_experiment_is_refused(workspace, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", f"try-{KEY}")
    assert refusal("seed: 1\n").startswith("the name of the experiment holds a value that the rule github-token ")


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "a ${seed} b", "${"])
def test_an_interpolation_is_refused_by_its_key(workspace, value):
    said = refusal(f"report:\n  title: '{value}'\n")
    assert said.startswith("params.yaml:2: report.title holds ${...}: `dvc exp run -S` replaces it by the value of ")


def test_a_file_with_neither_is_accepted(workspace):
    refuse_texts()
    Path("data/policy.yaml").unlink()  # a workspace without the stages that read it
    refuse_texts()


def test_a_policy_that_cannot_be_used_refuses_everything(workspace):
    Path("data/policy.yaml").write_text("rules: [")
    with pytest.raises(UserError, match=r"data/policy\.yaml"):
        refuse_texts()


def test_check_refuses_both(workspace):
    text = Path("params.yaml").read_text(encoding="utf-8")
    for title, expected in ((KEY, "the rule github-token"), ("'${oc.env:HOME}'", "holds ${...}")):
        Path("params.yaml").write_text(text.replace("title: ", f"title: {title} # "), encoding="utf-8")
        done = CliRunner().invoke(whole_app(), ["check"])
        assert (done.exit_code, KEY in done.output) == (2, False)
        assert "report.title" in done.output
        assert expected in done.output
