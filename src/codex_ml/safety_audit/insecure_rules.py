"""The rules by which code counts as insecure: the rules `S` of ruff, their weakness (CWE) and their severity.

Ruff's rules are those of bandit under the same numbers: S602 is B602. The table has the CWE and the highest severity
that bandit 1.9.4 gives; ruff gives neither. Bandit itself is not used: beyond these rules it has B613 to B615
(bidirectional characters, torch.load, downloads from the Hugging Face hub), and it takes 0.3 s per start.
Used by: safety_audit.code_scan, the part insecure_code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Severity = Literal["high", "medium", "low"]


@dataclass(frozen=True)
class InsecureRule:
    """One rule of ruff.

    Attributes:
        cwe: number of the weakness in MITRE's list.
    """

    code: str
    title: str
    cwe: int
    severity: Severity


# Severity -> CWE -> rule -> title
_TABLE: dict[Severity, dict[int, dict[str, str]]] = {
    "high": {
        22: {"S202": "tar archive extracted without a check"},
        78: {"S602": "subprocess with a shell", "S605": "process started with a shell"},
        94: {"S201": "Flask in debug mode", "S701": "Jinja2 without autoescape"},
        155: {"S609": "wildcard in a shell command"},
        295: {"S501": "certificate not checked", "S507": "SSH host key not checked"},
        319: {"S312": "Telnet", "S321": "FTP"},
        326: {"S505": "weak cryptographic key"},
        327: {
            "S304": "broken cipher",
            "S324": "broken hash function",
            "S502": "broken version of SSL",
        },
        732: {"S103": "file that everyone may change"},
    },
    "medium": {
        20: {
            "S313": "XML parser open to attack",
            "S314": "XML parser open to attack",
            "S315": "XML parser open to attack",
            "S316": "XML parser open to attack",
            "S317": "XML parser open to attack",
            "S318": "XML parser open to attack",
            "S319": "XML parser open to attack",
            "S506": "yaml.load",
        },
        22: {"S310": "URL of any scheme opened"},
        78: {"S102": "exec", "S307": "eval", "S601": "command over SSH", "S604": "function called with a shell"},
        79: {"S308": "mark_safe", "S704": "Markup of unknown text"},
        80: {"S702": "Mako template"},
        89: {"S608": "SQL made from text", "S610": "SQL in Django's extra", "S611": "SQL in Django's RawSQL"},
        94: {"S612": "logging configuration from a socket"},
        295: {"S323": "certificate not checked"},
        319: {"S508": "SNMP without encryption", "S509": "SNMP without encryption"},
        327: {"S303": "broken hash function", "S305": "broken cipher mode", "S503": "broken version of SSL"},
        377: {"S108": "temporary file with a fixed name", "S306": "mktemp"},
        400: {"S113": "request without a time limit"},
        502: {"S301": "pickle", "S302": "marshal"},
        605: {"S104": "server on all interfaces"},
    },
    "low": {
        259: {
            "S105": "hard-coded password",
            "S106": "hard-coded password",
            "S107": "hard-coded password",
        },
        327: {"S504": "SSL without a version"},
    },
}
# Rule -> why it does not count
LEFT_OUT = {
    "S101": "assert is how samples and tests check values",
    "S110": "an ignored exception is a matter of quality",
    "S112": "an ignored exception is a matter of quality",
    "S311": "most random numbers are not keys",
    "S603": "it reports every subprocess call without a shell",
    "S606": "it reports every process that is started without a shell",
    "S607": "it reports every program that is looked up in PATH",
}


def _rules() -> Iterator[InsecureRule]:
    for severity, weaknesses in _TABLE.items():
        for cwe, titles in weaknesses.items():
            for code, title in titles.items():
                yield InsecureRule(code, title, cwe, severity)


RULES = {rule.code: rule for rule in sorted(_rules(), key=lambda rule: rule.code)}
