"""The rules for secrets in text: what is looked for, how it is confirmed, how bad it is.

A rule is tried only where one of its literals occurs; the pattern decides, the entropy floor throws out placeholders.
`example` makes an instance with random characters, so that every scan can prove that it finds what it should: no
secret-shaped text stands in this file.
"""

from __future__ import annotations

import base64
import random
import re
import string
from collections.abc import Callable
from dataclasses import dataclass

UPPER, LOWER, DIGITS = string.ascii_uppercase, string.ascii_lowercase, string.digits
ALNUM = UPPER + LOWER + DIGITS
HEX = "0123456789abcdef"


@dataclass(frozen=True)
class Rule:
    """One kind of secret.

    Attributes:
        literals: texts of which one must occur (case-sensitive) before the pattern is tried.
        pattern: group 1 is the secret value.
        entropy: least Shannon entropy of the value, bits a character; lower values are placeholders.
        severity: "block" must never be trained on or emitted, "warn" is reported.
    """

    id: str
    literals: tuple[str, ...]
    pattern: re.Pattern[str]
    entropy: float
    severity: str
    example: Callable[[random.Random], str]


def _token(prefix: str, alphabet: str, length: int) -> Callable[[random.Random], str]:
    return lambda dice: prefix + "".join(dice.choices(alphabet, k=length))


def _private_key(dice: random.Random) -> str:
    body = base64.b64encode(dice.randbytes(600)).decode()
    lines = [body[i : i + 64] for i in range(0, len(body), 64)]
    return "\n".join(["-----BEGIN RSA PRIVATE " + "KEY-----", *lines, "-----END RSA PRIVATE " + "KEY-----"])


def _jwt(dice: random.Random) -> str:
    parts = [b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"' + dice.randbytes(9).hex().encode() + b'"}', dice.randbytes(32)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def _url_password(dice: random.Random) -> str:
    return "postgres://service:" + "".join(dice.choices(ALNUM, k=20)) + "@db.internal/app"


def _assignment(dice: random.Random) -> str:
    return 'api_key = "' + "".join(dice.choices(ALNUM, k=32)) + '"'


def _sendgrid(dice: random.Random) -> str:
    return _token("S" + "G.", ALNUM, 22)(dice) + _token(".", ALNUM, 43)(dice)


def _rule(
    rule_id: str, literals: str, pattern: str, example: Callable[[random.Random], str], *, entropy: float = 3.0
) -> Rule:
    """A blocking rule; `literals` are separated by blanks."""
    return Rule(rule_id, tuple(literals.split()), re.compile(pattern), entropy, "block", example)


PRIVATE_KEY = (
    r"(-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s\\]{64,}"
    r"(?:-----END [A-Z ]*PRIVATE KEY-----)?)"
)
CREDENTIALS_IN_URL = (
    r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@'\"]{1,64}:"
    r"([^\s:/@'\"<>{}%$*]{8,128})@[a-z0-9]"
)
ASSIGNMENT = (
    r"(?i)\b\w*(?:api_?key|secret|token|passw(?:or)?d)\w*['\"]?\s*[:=]\s*"
    r"['\"]([A-Za-z0-9+/=_-]{24,128})['\"]"
)
GITHUB = r"\b(gh[pousr]_[A-Za-z0-9]{36})\b"

RULES: tuple[Rule, ...] = (
    _rule("aws-access-key", "AKIA", r"\b(AKIA[A-Z2-7]{16})\b", _token("AKIA", UPPER + "234567", 16)),
    _rule("github-token", "ghp_ gho_ ghu_ ghs_ ghr_", GITHUB, _token("gh" + "p_", ALNUM, 36)),
    _rule("github-pat", "github_pat_", r"\b(github_pat_\w{60,90})\b", _token("github_" + "pat_", ALNUM, 82)),
    _rule("gitlab-token", "glpat-", r"\b(glpat-[\w-]{20})\b", _token("gl" + "pat-", ALNUM, 20)),
    _rule("slack-token", "xox", r"\b(xox[abposr]-[A-Za-z0-9-]{20,80})\b", _token("xo" + "xb-", ALNUM, 40)),
    _rule("google-api-key", "AIza", r"\b(AIza[\w-]{35})(?![\w-])", _token("AI" + "za", ALNUM, 35)),
    _rule("stripe-key", "_live_", r"\b([rs]k_live_[A-Za-z0-9]{24,99})\b", _token("sk_" + "live_", ALNUM, 24)),
    _rule("openai-key", "sk-", r"\b(sk-(?:proj-)?[A-Za-z0-9_-]{40,})", _token("s" + "k-", ALNUM, 48), entropy=3.5),
    _rule("huggingface-token", "hf_", r"\b(hf_[A-Za-z]{34})\b", _token("h" + "f_", UPPER + LOWER, 34)),
    _rule("pypi-token", "pypi-", r"\b(pypi-AgE[\w-]{50,})", _token("py" + "pi-AgE", ALNUM, 120)),
    _rule("npm-token", "npm_", r"\b(npm_[A-Za-z0-9]{36})\b", _token("np" + "m_", ALNUM, 36)),
    _rule("sendgrid-key", "SG.", r"\b(SG\.[\w-]{22}\.[\w-]{43})(?![\w-])", _sendgrid),
    _rule("private-key", "-----BEGIN", PRIVATE_KEY, _private_key),
    _rule("jwt", "eyJ", r"\b(eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,})", _jwt),
    _rule("url-password", "://", CREDENTIALS_IN_URL, _url_password, entropy=3.2),
    _rule("assigned-secret", "key KEY secret SECRET token TOKEN passw PASSW", ASSIGNMENT, _assignment, entropy=4.0),
)
