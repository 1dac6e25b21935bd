"""Text that only looks like a secret or personal data stays unchanged. Other scanners report each of these lines."""

from __future__ import annotations

import base64
import hashlib
import sysconfig
import uuid
from pathlib import Path

import pytest


def hexadecimal(text, length):
    return hashlib.sha512(text.encode()).hexdigest()[:length]


SRI = "sha512-" + base64.b64encode(hashlib.sha512(b"x").digest()).decode()
LINES = [
    f'id = "{uuid.UUID(hexadecimal("a", 32))}"',
    f'token = "{uuid.UUID(hexadecimal("b", 32))}"',
    f"commit {hexadecimal('c', 40)}",
    f'"integrity": "{SRI}"',
    f'token_digest = "sha256:{hexadecimal("d", 64)}"',
    f"image: registry/app@sha256:{hexadecimal('e', 64)}",
    'path = "/usr/lib/python3.11/site-packages/token2/secret3.py"',
    'secret_path = "/usr/lib/python3.11/site-packages/token2/secret3.py"',
    'secret_name = "projects/acme-prod/secrets/db-password/versions/3"',
    'private_key_path = "~/.ssh/id_ed25519_2024_backup"',
    'name = "getUserAccountSettingsForOrganization2"',
    'id_token = "IdTokenVerifierFactory2024Bean1"',
    '"tokenizer_class": "PreTrainedTokenizerFast2Model"',
    'access_key = "fooBarBazQuxQuuxCorgeGrault"',
    "task-AbCdEfGhIjKlMnOpQrStUvWxYz2345ABCDEFGHIJ",
    'public_key = "ssh-rsa AAAAB3NzaC1yc2E"',
    'key_type = "AAAAB3NzaC1yc2EAAAADAQABAAABAQ"',
    'monkey = "banana-smoothie-with-peel"',
    "api_key = '" + "X" * 24 + "'",
    "gh" + "p_" + "x" * 36,
    "AK" + "IA" + "IOSFODNN7" + "EXAMPLE",
    "h" + "f_" + "x" * 34,
    "token = 'your-token-goes-here-123456'",
    "password = 'password123'",
    "password = getpass.getpass('pw2 12')",
    "PASSWORD=$DB_PASSWORD_1234",
    "API_KEY=${API_KEY_2_FROM_ENV}",
    'SECRET_KEY = os.environ["SECRET_KEY_123456789012"]',
    "token: 2020-01-01T00:00:00+00:00",
    "Bearer <token>",
    "postgres://user:password@localhost/db",
    "https://one.org:123,foo:bar@two.org/path",
    "postgres://a.db:5432,user:password@b.db/x",
    "postgres://user:${DB_PASSWORD}@localhost/db",
    "postgres://{user}:{password}@{host}/x",
    "https://user:<password>@host/",
    "-----BEGIN RSA PRIVATE " + "KEY-----\n...\n-----END RSA PRIVATE " + "KEY-----",
    'if line == "-----BEGIN RSA PRIVATE '
    + 'KEY-----":\n    read_the_lines_of_the_body(until="-----END RSA PRIVATE '
    + 'KEY-----")',
    '@app.route("/x")',
    "@foo.bar",
    "y = X@W.transpose()",
    "s = q@k.mT",
    "A@B.T",
    "z = self.w@self.data.to",
    "x = w@x.to(device)",
    "f'{user}@{host}.org'",
    "'%s@%s.com' % (user, host)",
    '"logo@2x.png" "icon@3x.pl"',
    '"left-pad@1.3.0" "@scope/pkg@2.0.0" "lib@1.2.3-beta.io"',
    "git@github.com:acme/widgets.git",
    "deploy@host.acme.org:/srv/www/",
    "ssh://git@github.com/acme/widgets.git",
    "user@localhost a @ b.com me@example.org you@mail.example",
    "aes128-gcm@openssh.com",
    'version = "1.128.11.10"',
    '__version__ = "61.128.11.10"',
    "## [61.128.11.10] - 2026-01-02",
    "MongoDB v44.42.21.10",
    "OID 1.3.6.1.4.1.311.21.20",
    '<PackageReference Include="X" Version="61.12.19.30" />',
    "numpy==61.26.41.10",
    "61.128.11.10 is the release of May",
    "app-61.20.33.44-beta",
    "FileVersion 61.20.33.44",
    "package-61.20.33.44.tar.gz",
    "Chrome/120.90.60.109 Safari/537.36",
    "0.0.0.0 127.0.0.1 10.1.2.3 172.16.9.9 192.168.1.1 169.254.1.1 192.0.2.44 198.51.100.7 203.0.113.9",
    "netmask 255.255.255.0",
    "300.21.22.23 is no address",
    "0x7f.61.62.63.64.65",
    "2001:db8::7 ::1 fe80::1 fd00::12 ff02::1",
    "a[::2] = b[1::3]",
    "std::vector<int>::iterator",
    "at 12:34:56:78, MAC aa:bb:cc:dd:ee:ff",
    "order 4155550132, id: 9434765919",
    "phone_id = 1234567890",
    "1e+4915123456789",
    "x+4915123456789",
    "+1 415 555 0132",
    "2024-01-01 2024-02-02 20240101 1700000000000",
    "1234 5678 9012 3456",
    "0.4111111111111111",
    "ISBN 978-3-16-148410-0",
    "DE00 1234 5678 9012 3456 78",
    "NHS number 943 476 5918",
    "ssn = 000-12-3456",
    "SSN field 123",
    "ignore previous commits; the system prompt is shown; disregard the previous instruction set",
]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("frame", ["{}", "    {}\n", "x\n{}\r\ny"])
def test_it_stays_as_it_is(scanner, line, frame):
    text = frame.replace("{}", line)
    assert [(f.rule, text[f.start : f.end]) for f in scanner.scan(text)] == []


def test_a_ten_digit_number_without_a_word_for_it_is_not_personal(scanner):
    for number in range(9_000_000_000, 9_000_400_000, 977):
        assert scanner.scan(f"rows = {number}\n") == []


def test_the_standard_library_holds_no_secret_and_less_than_one_false_hit_per_megabyte(scanner):
    """Clean code of many hands, on every machine. Mail addresses in it are real ones, and its tests hold keys."""
    root, size, found = Path(sysconfig.get_path("stdlib")), 0, []
    for file in sorted(root.rglob("*.py")):
        if {"test", "tests", "idle_test", "site-packages", "dist-packages"}.isdisjoint(file.relative_to(root).parts):
            text = file.read_text("utf-8", "replace")
            size += len(text)
            found += [(file.name, f.line, f.rule) for f in scanner.scan(text) if f.rule != "email"]
    kinds = {rule.id: rule.kind for rule in scanner.policy.rules}
    assert [hit for hit in found if kinds[hit[2]] == "secret"] == []
    assert size > 5_000_000 and len(found) <= size / 1e6, found


def test_an_address_in_brackets_or_after_a_word_that_ends_as_oid_does_is_found(scanner):
    """`oid` names a number with points, and `x[2048::2]` is a slice; a void function and a log of mail are neither."""
    four, six = "81.2.69" + ".142", "2a01:4f8:" + "1c17:a8::7"
    for text in (f"Android {four}", f'void open(char *to = "{four}")', f"from=mx.acme.dev[{six}]:25", f"[{six}]:80"):
        assert len(scanner.scan(text)) == 1, text
    for text in (f"oid {four}", f"X_OID = {four}", f"certOid: {four}", "x[2048::2]", "f(x)[2600::16]"):
        assert scanner.scan(text) == [], text
