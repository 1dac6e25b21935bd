"""What the tests of the policy share: the repository's own policy, and text that looks like a secret, made at run time."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from pathlib import Path

import pytest

from codex_ml.policy.redact import redact
from codex_ml.policy.rules import Policy, load_policy, parse_policy
from codex_ml.policy.scan import Scanner

ALNUM = string.ascii_letters + string.digits
KEY = b"a key of the tests"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the repository's own policy are `shipped`: the user of a clone may have another."""
    for item in items:
        if Path(__file__).parent in item.path.parents and "policy" in item.fixturenames:
            item.add_marker("shipped")


@pytest.fixture(scope="session")
def policy(repository) -> Policy:
    return load_policy(repository / "data/policy.yaml")


@pytest.fixture(scope="session")
def scanner(policy) -> Scanner:
    return Scanner(policy)


@pytest.fixture(scope="session")
def token() -> Callable[..., str]:
    """`token(prefix, length, seed)`: a secret-shaped text."""

    def make(prefix: str, length: int, seed: object = 0, alphabet: str = ALNUM) -> str:
        return prefix + "".join(random.Random(f"{seed}").choices(alphabet, k=length))

    return make


@pytest.fixture(scope="session")
def clean(scanner) -> Callable[[str], str]:
    """Redact by the repository's policy."""
    return lambda text: redact(text, scanner.scan(text), KEY)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Scanner]:
    """A scanner for a policy given as YAML, without its first line."""
    return lambda text: Scanner(parse_policy("version: 1\n" + text, name="policy.yaml"))
