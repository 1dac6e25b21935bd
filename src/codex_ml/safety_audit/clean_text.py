"""The other control of the scan: text that looks like secrets and has none, in which it must find next to nothing.

A policy that redacts everything finds every planted secret. The lines are of the kinds that scanners are known to take
for secrets: hash values, identifiers, versions, placeholders, test keys of documentation, public keys, addresses that
belong to nobody (RFC 2606, 5737, 1918, 3849). Numbers have at most 13 digits: one of ten longer ones passes the check
of a card number. The lines are made at run time from a seed.
Used by: safety_audit.data_side.
"""

from __future__ import annotations

import base64
import random
import uuid
from collections.abc import Callable, Iterator

from codex_ml.policy.scan import Scanner

CLEAN_BYTES = 1_000_000
LINES = 80  # per text
CONSONANTS, VOWELS = "bcdfgklmnprstv", "aeiou"
PROSE = (
    "the value of this field is read before each call and the result is kept until the next one returns when there is "
    "no default set it in the section of the file that names your project 值 结果 größe émis 😀"
)

Line = Callable[[random.Random], str]


def _name(rng: random.Random) -> str:
    """An identifier of two or three pronounceable parts."""
    parts = (
        "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(2, 3)))
        for _ in range(rng.randint(1, 3))
    )
    return "_".join(parts)


def _hex(rng: random.Random, length: int) -> str:
    return f"{rng.getrandbits(4 * length):0{length}x}"


def _version(rng: random.Random, parts: int = 3) -> str:
    return ".".join(str(rng.randrange(40)) for _ in range(parts))


def _base64(rng: random.Random, size: int) -> str:
    return base64.b64encode(rng.randbytes(size)).decode()


def _words(rng: random.Random) -> str:
    return " ".join(rng.choices(PROSE.split(), k=rng.randint(4, 14)))


def _public_block(rng: random.Random) -> str:
    kind = rng.choice(["CERTIFICATE", "PUBLIC KEY"])
    body = "\n".join(_base64(rng, 48) for _ in range(4))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"


def _placeholder(rng: random.Random) -> str:
    name = rng.choice(["password", "api_key", "token", "secret", "client_secret"])
    return rng.choice(
        [
            f'{name} = os.environ["{name.upper()}"]',
            f"{name}: ${{{name.upper()}}}",
            f'{name} = "your-{name.replace("_", "-")}-here"',
            f"{name}=None,",
            f"self.{name} = {name}",
            f"{name} = getpass.getpass()",
            f"{name}: <{name}>",
            f'{name} = config.get("{name}", "")',
            f'{name} = "changeme"',
            f'if {name} != "" and len({name}) > 8:',
            f"def check_{name}({name}: str) -> bool:",
        ]
    )


def _nobody(rng: random.Random) -> str:
    """An address that belongs to nobody."""
    last = rng.randrange(1, 255)
    return rng.choice(
        [
            f"10.{rng.randrange(256)}.{rng.randrange(256)}.{last}",
            f"192.168.{rng.randrange(256)}.{last}",
            f"192.0.2.{last}",
            f"198.51.100.{last}",
            f"203.0.113.{last}",
            "127.0.0.1",
            "0.0.0.0",  # noqa: S104 - text
            "255.255.255.0",
            f"2001:db8::{last:x}",
            "::1",
            f"{_name(rng)}@example.{rng.choice(['com', 'org', 'net'])}",
            f"{_name(rng)}@{_name(rng)}.example",
        ]
    )


MAKERS: tuple[Line, ...] = (
    lambda rng: f"def {_name(rng)}({_name(rng)}, *, {_name(rng)}=None):",
    lambda rng: f"    return {_name(rng)}.{_name(rng)}({_name(rng)}[{rng.randrange(99)}], {_name(rng)})",
    lambda rng: f"    {_name(rng)} = {_name(rng)} @ {_name(rng)}.T",
    lambda rng: f"@{_name(rng)}.{_name(rng)}({rng.randrange(999)})",
    lambda rng: f"from {_name(rng)}.{_name(rng)} import {_name(rng)}",
    lambda rng: f"    # {_words(rng)}",
    lambda rng: _words(rng).capitalize() + ".",
    lambda rng: f"{_name(rng)}=={_version(rng)} --hash=sha256:{_hex(rng, 64)}",
    lambda rng: f"commit {_hex(rng, 40)}",
    lambda rng: f"index {_hex(rng, 7)}..{_hex(rng, 7)} 100644",
    lambda rng: f"{_hex(rng, 32)}  {_name(rng)}-{_version(rng)}.tar.gz",
    lambda rng: f'    "integrity": "sha512-{_base64(rng, 64)}",',
    lambda rng: f'    "id": "{uuid.UUID(int=rng.getrandbits(128))}",',
    lambda rng: f'__version__ = "{_version(rng, 4)}"',
    lambda rng: f"    oid = '1.3.6.1.4.1.{rng.randrange(99999)}.{_version(rng)}'",
    lambda rng: f"    {_name(rng)}: [{', '.join(f'0x{rng.randrange(256):02X}' for _ in range(12))}]",
    lambda rng: f"    {_name(rng)} = {rng.random():.16f}, {rng.getrandbits(32)}, {_version(rng, 2)}e-9",
    lambda rng: f"20{rng.randrange(10, 26)}-0{rng.randrange(1, 9)}-1{rng.randrange(9)}T12:34:56Z {_words(rng)}",
    lambda rng: f"    timestamp: {1_600_000_000_000 + rng.getrandbits(36)}",
    lambda rng: f"git clone git@github.com:{_name(rng)}/{_name(rng)}.git",
    lambda rng: f'"@{_name(rng)}/{_name(rng)}": "npm:@{_name(rng)}/{_name(rng)}@{_version(rng)}",',
    lambda rng: f"![{_name(rng)}](img/{_name(rng)}@2x.png)",
    lambda rng: f"https://{_name(rng)}.example/{_name(rng)}?page={rng.randrange(99)}&sort={_name(rng)}#L{rng.randrange(999)}",
    lambda rng: f"<img src='data:image/png;base64,{_base64(rng, 96)}'>",
    lambda rng: f"ssh-ed25519 {_base64(rng, 51)} {_name(rng)}@localhost",
    lambda rng: "aws_access_key_id = AKIA" + "IOSFODNN7" + "EXAMPLE",
    lambda rng: f"postgresql://localhost:5432/{_name(rng)}",
    _placeholder,
    lambda rng: f"    host: {_nobody(rng)}",
    _public_block,
)  # fmt: skip


def clean_texts(seed: int, size: int = CLEAN_BYTES) -> Iterator[str]:
    """Yield texts of `size` bytes in all, rounded up to a whole text; the same for the same seed."""
    rng = random.Random(f"clean {seed}")  # noqa: S311 - test material, not keys
    total = 0
    while total < size:
        text = "\n".join(rng.choice(MAKERS)(rng) for _ in range(LINES)) + "\n"
        total += len(text.encode())
        yield text


def false_positives(scanner: Scanner, *, seed: int, size: int = CLEAN_BYTES) -> tuple[list[str], int, int]:
    """Scan clean text.

    Returns:
        (ids of the rules that found something, once per finding; number of texts; their bytes).
    """
    rules, texts, total = [], 0, 0
    for text in clean_texts(seed, size):
        texts, total = texts + 1, total + len(text.encode())
        rules += [finding.rule for finding in scanner.scan(text) if finding.action != "allow"]
    return rules, texts, total
