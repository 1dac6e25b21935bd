"""`version:` in params.yaml, and the rewrite of an older file: keys change, everything else stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import whole_app
from codex_ml.cli.param_rules import load_params, validate_params
from codex_ml.cli.param_upgrade import ParamUpgrade, RenamedKey, upgraded
from codex_ml.core.errors import UserError
from codex_ml.core.yaml import parse_yaml

INVENTED = (RenamedKey("train.rate", "lr"), RenamedKey("seed_of_all", "seed"), RenamedKey("a.b.c", "d", {"on": "auto"}))


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(whole_app(), ["params", "upgrade", *arguments])
    return result.exit_code, result.stdout, result.stderr


def older() -> str:
    text = Path("params.yaml").read_text()
    line = next(line for line in text.split("\n") if line.startswith("  on_fail: "))
    return text.replace(line, "  enforce: true                 # ends the pipeline").replace("version: 1 ", "# none: ")


def test_a_file_without_a_version_has_the_form_of_version_1(workspace: Path) -> None:
    values = parse_yaml(Path("params.yaml").read_text(), "params.yaml")
    assert values.pop("version") == 1
    assert validate_params(values).version == 1


@pytest.mark.parametrize("version", [2, 99])
def test_a_newer_file_is_refused_before_its_unknown_keys(workspace: Path, version: int) -> None:
    Path("params.yaml").write_text(f"version: {version}\nnew_section: {{}}\n")
    for command in (["params", "upgrade"], ["check"]):
        result = CliRunner().invoke(whole_app(), command)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: params.yaml: version {version} is newer than the form")


@pytest.mark.parametrize("version", ["0", "-1", "one", "1.5", "true", "[1]"])
def test_another_version_is_refused(workspace: Path, version: str) -> None:
    with pytest.raises(UserError, match=r"params.yaml: version"):
        validate_params(parse_yaml(f"version: {version}\n", "x"))


def test_the_rewrite_keeps_every_other_character(workspace: Path) -> None:
    before = older()
    Path("params.yaml").write_text(before)
    with pytest.raises(UserError, match=r"safety_audit.enforce is not a parameter.*`codex-ml params upgrade` rewrites"):
        load_params()
    assert run("--check") == (
        1,
        "safety_audit.enforce: true is now safety_audit.on_fail: stop\n",
        "error: params.yaml needs 1 change(s); `codex-ml params upgrade` makes them\n",
    )
    assert Path("params.yaml").read_text() == before
    assert run()[0] == 0
    expected = before.replace("  enforce: true", "  on_fail: stop").replace("seed: 1 ", "version: 1\nseed: 1 ")
    assert before.count("seed: 1 ") == 1
    assert Path("params.yaml").read_text() == expected
    assert load_params().safety_audit.on_fail == "stop"
    code, out, _ = run("--json")
    assert code == 0 and ParamUpgrade.model_validate_json(out) == ParamUpgrade(version=1, changes=[], written=False)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("train:\n  rate: 1e-3   # peak\n", "version: 2\ntrain:\n  lr: 1e-3     # peak\n"),
        ("train: {rate: 1e-3, max_steps: 3}  # flow\n", "version: 2\ntrain: {lr: 1e-3, max_steps: 3}  # flow\n"),
        ('# top\n\n"seed_of_all": 3 # x\nb: [1]\n', "# top\n\nversion: 2\nseed: 3 # x\nb: [1]\n"),
        ("version: 1   # v\nseed_of_all: 3\n", "version: 2   # v\nseed: 3\n"),
        ("a: {b: {c: on}}\n", "version: 2\na: {b: {d: auto}}\n"),
        ("a:\n  b:\n    c: off      # ünï\n", "version: 2\na:\n  b:\n    d: off      # ünï\n"),
        ("ü: 'é'\na: {b: {ö: 1, c: on}}", "version: 2\nü: 'é'\na: {b: {ö: 1, d: auto}}"),
        ("a:\n  b:\n    c:\n    - 1\n", "version: 2\na:\n  b:\n    d:\n    - 1\n"),
        ("{train: {rate: 1}}\n", "{version: 2, train: {lr: 1}}\n"),
        ("--- {seed_of_all: 3}  # x\n", "--- {version: 2, seed: 3}  # x\n"),
        ("{\n  seed_of_all: 3,\n  b: 1\n}\n", "{\n  version: 2, seed: 3,\n  b: 1\n}\n"),
        ("\ufeffseed_of_all: 3\nb: 1\n", "\ufeffversion: 2\nseed: 3\nb: 1\n"),
        ("\ufeff{b: 1, seed_of_all: 3}\n", "\ufeff{version: 2, b: 1, seed: 3}\n"),
        ("\ufeff# top\nseed_of_all: 3\n", "\ufeff# top\nversion: 2\nseed: 3\n"),
        ("  b: 1\n  seed_of_all: 3\n", "  version: 2\n  b: 1\n  seed: 3\n"),
        ("---\r\nseed_of_all: 3\r\n", "---\r\nversion: 2\r\nseed: 3\r\n"),
        ("{version: 1, seed_of_all: 3}", "{version: 2, seed: 3}"),
        ("train:\n  lr: 1\nother: {rate: 1}\n", "train:\n  lr: 1\nother: {rate: 1}\n"),
        ("train: 3\na: null\n", "train: 3\na: null\n"),
        ("", ""),
    ],
)
def test_a_change_replaces_a_key_or_a_value_in_any_style(before: str, after: str) -> None:
    assert upgraded(before, "params.yaml", INVENTED, 2)[0] == after
    assert upgraded(after, "params.yaml", INVENTED, 2) == (after, [])


@pytest.mark.parametrize(
    ("value", "new"),
    [("true", "stop"), ("True", "stop"), ("TRUE", "stop"), ("false", "warn"), ("False", "warn"), ("FALSE", "warn")],
)
def test_each_spelling_of_a_yaml_boolean_is_known(value: str, new: str) -> None:
    after = f"version: 1\nsafety_audit: {{on_fail: {new}}}\n"
    said = [f"safety_audit.enforce: {value} is now safety_audit.on_fail: {new}"]
    assert upgraded(f"safety_audit: {{enforce: {value}}}\n", "params.yaml") == (after, said)


@pytest.mark.parametrize(
    "text",
    [
        "safety_audit:\n  enforce:\n    !!bool\n    true\n",
        "? safety_audit\n: {enforce: true}\n",
        "x: &x {enforce: true}\nsafety_audit: *x\n",
        "x: &x {enforce: true}\nsafety_audit:\n  <<: *x\n  &y enforce: true\nz: *y\n",
    ],
)
def test_what_cannot_be_rewritten_is_left_and_said(workspace: Path, text: str) -> None:
    Path("params.yaml").write_text(text)
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err == (
        "error: params.yaml is written in a way that is not rewritten; change it by hand: "
        "safety_audit.enforce: true is now safety_audit.on_fail: stop\n"
    )
    assert Path("params.yaml").read_text() == text


def test_both_names_of_a_key_are_refused() -> None:
    with pytest.raises(UserError, match=r"params.yaml:3: both train.rate and train.lr are given; delete the former"):
        upgraded("train:\n  lr: 1\n  rate: 2\n", "params.yaml", INVENTED, 2)


def test_what_only_the_user_can_decide_is_named_after_the_rewrite(workspace: Path) -> None:
    Path("params.yaml").write_text(older().replace("train:\n", "train:\n  unknown_key: 3\n", 1))
    code, out, err = run()
    assert (code, out.count("\n"), err.count("\n")) == (2, 1, 1)
    assert "train.unknown_key is not a parameter" in err
    assert "on_fail: stop" in Path("params.yaml").read_text()
