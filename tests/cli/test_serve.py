"""`codex-ml serve`: what it refuses to start with, on one line, and what it loads."""

from __future__ import annotations

import importlib.util
import re
import socket
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import whole_app
from codex_ml.cli.measure_model import go_offline
from codex_ml.cli.serving import TOKEN, environment_token, refuse_missing_extra
from codex_ml.core.errors import UserError
from codex_ml.core.packages import install_extra


@pytest.fixture(autouse=True)
def online(monkeypatch) -> Iterator[None]:
    """No test leaves this process without a network."""
    monkeypatch.setattr(sys, "addaudithook", lambda hook: None)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    go_offline.cache_clear()
    yield
    go_offline.cache_clear()


def refused(*arguments: object, **environment: str) -> str:
    done = CliRunner().invoke(whole_app(), ["serve", *map(str, arguments)], env=environment)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, "an error is one line"
    return done.stderr


def test_a_missing_extra_names_the_command_that_installs_it(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=re.escape(f"needs starlette and uvicorn; {install_extra('serve')}")):
        refuse_missing_extra()


def test_other_machines_need_a_token(workspace: Path) -> None:
    for everywhere in (str(IPv4Address(0)), "::"):
        assert "clients must show a token" in refused("--host", everywhere, "--port", 0)
    assert "is not an address" in refused("--host", "my.host.example")


@pytest.mark.parametrize(
    "text", ["", "short", "with space in the middle of it", "ä" * 20, "a" * 5000, "two\nlines-of-a-token"]
)
def test_a_token_that_cannot_be_one_is_refused_and_not_shown(workspace: Path, text: str) -> None:
    Path("token").write_text(text, encoding="utf-8")
    said = refused("--token-file", "token", "--port", 0)
    assert "must hold one token of 16 to 4096" in said
    assert not text or text not in said
    assert "cannot be read (No such file or directory)" in refused("--token-file", "none")


def test_the_token_of_the_environment_does_not_stay_there(monkeypatch) -> None:
    monkeypatch.setenv(TOKEN, "a-token-of-the-tests")
    assert environment_token() == "a-token-of-the-tests"
    assert environment_token() is None


def test_a_port_that_is_taken_is_reported_before_the_model_is_read(workspace: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--port {port} of 127.0.0.1 cannot be opened (Address already in use)" in refused("--port", port)


def test_a_missing_model_and_two_sources_are_refused(workspace: Path) -> None:
    assert "nowhere does not exist" in refused("--model", "nowhere", "--port", 0)
    assert "give one of them" in refused("--model", "a", "--upstream", "http://127.0.0.1:1")


def test_a_file_that_is_no_model_is_refused_in_the_words_of_the_command_line(workspace: Path) -> None:
    Path("notes.md").write_text("# notes\n", encoding="utf-8")
    said = refused("--model", "notes.md", "--port", 0)
    assert said.endswith("notes.md is neither a folder nor a GGUF file; --model names one of these\n")


def test_a_policy_that_cannot_be_used_stops_the_start(workspace: Path) -> None:
    Path("data/policy.yaml").write_text("rules: 1\n", encoding="utf-8")
    assert "data/policy.yaml" in refused("--port", 0)
