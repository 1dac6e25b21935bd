"""Nothing of a private key may stay: RFC 7468 blocks from header to footer, in every spelling. Public keys stay."""

from __future__ import annotations

import base64
import json
import random

import pytest

DASHES = "-" * 5


def block(label, seed=0, rows=12, newline="\n", footer=True):
    body = base64.b64encode(random.Random(seed).randbytes(48 * rows - 5)).decode()
    lines = [body[i : i + 64] for i in range(0, len(body), 64)]
    end = [f"{DASHES}END {label}{DASHES}"] if footer else []
    return newline.join([f"{DASHES}BEGIN {label}{DASHES}", *lines, *end]), lines


PRIVATE = "PRIVATE" + " KEY"
SPELLINGS = {
    "lf": lambda t: t,
    "cr lf": lambda t: t.replace("\n", "\r\n"),
    "cr": lambda t: t.replace("\n", "\r"),
    "yaml": lambda t: "key: |\n  " + t.replace("\n", "\n  "),
    "tabs": lambda t: t.replace("\n", "\n\t\t"),
    "json": lambda t: json.dumps({"private_key": t + "\n"}),
    "json with cr": lambda t: json.dumps({"k": t.replace("\n", "\r\n")}),
    "json in json": lambda t: json.dumps(json.dumps({"k": t})),
    "one line": lambda t: t.replace("\n", " "),
    "no breaks": lambda t: t.replace("\n", ""),
    "comment": lambda t: "# " + t.replace("\n", "\n# "),
    "block comment": lambda t: " * " + t.replace("\n", "\n * "),
    "quote": lambda t: "> " + t.replace("\n", "\n> "),
    "strings": lambda t: '"' + t.replace("\n", '\\n"\n    "') + '"',
    "plus": lambda t: "'" + t.replace("\n", "\\n' +\n '") + "'",
    "list": lambda t: "['" + t.replace("\n", "',\n '") + "']",
    "base64": lambda t: "KEY_B64=" + base64.b64encode(t.encode()).decode(),
    "base64 after text": lambda t: base64.b64encode(b"x" + t.encode()).decode(),
    "base64 after more": lambda t: base64.b64encode(b"xy: " + t.encode()).decode(),
    "base64 folded": lambda t: base64.encodebytes(t.encode()).decode(),
    "base64 in yaml": lambda t: "  " + base64.encodebytes(t.encode()).decode().replace("\n", "\n  "),
    "base64 in json": lambda t: json.dumps({"k": base64.encodebytes(t.encode()).decode()}),
    "zero width": lambda t: t.replace("BEGIN", "BE\u200bGIN"),
}
LABELS = [
    PRIVATE,
    "RSA " + PRIVATE,
    "EC " + PRIVATE,
    "OPENSSH " + PRIVATE,
    "ENCRYPTED " + PRIVATE,
    "PGP " + PRIVATE + " BLOCK",
]


def windows(lines, size=20):
    """Every 20 characters of the body: lines as they stand, and what base64 makes of the whole."""
    return {line[i : i + size] for line in lines for i in range(max(1, len(line) - size + 1))}


@pytest.mark.parametrize("footer", [True, False], ids=["footer", "no footer"])
@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_20_characters_of_the_body_remain_and_the_text_around_stays(clean, spelling, label, footer):
    pem, lines = block(label, seed=f"{spelling}{label}", footer=footer)
    spelt = SPELLINGS[spelling](pem)
    text = f"first line stays\n{spelt}\nlast line stays\n"
    result = clean(text)
    assert result.startswith("first line stays\n")
    assert result.endswith("last line stays\n")
    assert result.count("<SECRET:private-key:") == 1
    parts = [part for part in spelt.replace("\\n", "\n").split() if len(part) > 30]
    for window in windows([*lines, *parts]):
        assert window not in result


def test_two_keys_are_two_and_the_line_between_stays(clean):
    one, two = block(PRIVATE, 1)[0], block("RSA " + PRIVATE, 2)[0]
    result = clean(f"a\n{one}\nbetween the keys\n{two}\n")
    assert [part[:20] for part in result.split("\n")] == [
        "a",
        "<SECRET:private-key:",
        "between the keys",
        "<SECRET:private-key:",
        "",
    ]
    assert clean(one + "\n" + two).count("<SECRET:private-key:") == 2
    cut = block(PRIVATE, 3, footer=False)[0]
    assert clean(f"{cut}\n{two}\nend").count("<SECRET:private-key:") == 2


def test_an_encrypted_key_with_its_headers_goes(clean):
    pem, lines = block("RSA " + PRIVATE, 4)
    head, _, body = pem.partition("\n")
    result = clean(
        f"{head}\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123456789ABCDEF0123456789ABCDEF\n\n{body}\nafter"
    )
    assert result.startswith("<SECRET:private-key:")
    assert result.endswith(">\nafter")
    assert not any(line in result for line in lines)


@pytest.mark.parametrize("spelling", [name for name in SPELLINGS if name != "zero width"])
@pytest.mark.parametrize("label", ["PUBLIC" + " KEY", "CERTIFICATE", "RSA PUBLIC" + " KEY", "CERTIFICATE REQUEST"])
def test_public_material_stays(clean, spelling, label):
    text = SPELLINGS[spelling](block(label, 5)[0])
    ssh = "ssh-ed25519 " + base64.b64encode(random.Random(1).randbytes(51)).decode() + " build@ci"
    assert clean(text + "\n" + ssh) == text + "\n" + ssh


def test_a_public_key_beside_a_private_one_stays(clean):
    public, private = block("PUBLIC" + " KEY", 6)[0], block(PRIVATE, 7)[0]
    assert clean(f"{private}\n{public}\n").partition(">\n")[2] == public + "\n"
    assert clean(f"{public}\n{private}\n").startswith(public + "\n<SECRET:private-key:")


@pytest.mark.parametrize("form", ["-----BEGIN+{}+KEY-----{}{}-----", "-----BEGIN {} KEY-----Abcd: zz {}\nline 2 {}\n"])
def test_a_key_ends_at_the_next_header_so_that_many_are_read_once(scanner, form):
    line = base64.b64encode(random.Random(1).randbytes(36)).decode()
    unit = form.format("PRIVATE", line, line)
    values = scanner.matcher.matches(unit * 20).values
    assert len(values) == 20
    assert max(end - start for start, end, _ in values) <= len(unit)
