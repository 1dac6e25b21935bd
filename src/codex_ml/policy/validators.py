"""Checks that a value can be what its shape suggests: check digits, address ranges, decodable parts.

Each is a pure function of the value. One in eleven random ten-digit numbers passes a modulo-11 check, so a rule never
relies on such a check alone: it also needs a word of context (speakeasy-api/gram#5106).

python-stdnum computes the check digits, in 5 to 30 microseconds per value. Its import takes 0.1 s, so it is imported
for the first value that needs it.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import math
import re
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from itertools import pairwise

from codex_ml.policy.constants import (
    DOCUMENTATION,
    PHONE_LENGTHS,
    RESOLVERS,
    TOP_LEVEL,
)
from codex_ml.policy.randomness import is_generated, is_password, is_secret, is_token

ROUNDING = 1e-9


def entropy(value: str) -> float:
    """Shannon entropy of the characters, in bits per character; 0 for an empty text."""
    shares = [value.count(character) / len(value) for character in dict.fromkeys(value)]
    return -sum([share * math.log2(share) for share in shares])


@lru_cache(maxsize=4096)
def _least_entropy(different: int, length: int) -> float:
    """The entropy of a text in which one character repeats and all others are different; no other has less."""
    one = (length - different + 1) / length
    return (different - 1) / length * math.log2(length) - one * math.log2(one)


def has_entropy(value: str, least: float) -> bool:
    """Whether the entropy of a value, which is not empty, is at least `least`; for most values their length tells."""
    return _least_entropy(len(set(value)), len(value)) > least + ROUNDING or entropy(value) >= least


def _digits(value: str) -> str:
    return "".join(c for c in value if "0" <= c <= "9")


def _conforms(module: str, value: str) -> bool:
    """Whether a module of python-stdnum accepts a value as valid."""
    return bool(import_module(f"stdnum.{module}").is_valid(value))


def _is_varied(text: str) -> bool:
    """Whether more than two different characters occur: `111111112` is a sample, also with a valid check digit."""
    return len(set(text)) > 2


def is_luhn(value: str) -> bool:
    """Digits with a valid check digit (ISO/IEC 7812-1 annex B)."""
    return _conforms("luhn", _digits(value))


def is_card(value: str) -> bool:
    """A payment card number: issuer range, its length, one kind of separator, Luhn check digit."""
    text = _digits(value)
    separators = {c for c in value if not c.isdigit()}
    ranges = re.match(
        r"4\d{15}\Z|(?:5[1-5]|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12,14}\Z|3[47]\d{13}\Z"
        r"|3(?:0[0-5]|[689]\d)\d{11}\Z|(?:6011|65\d\d|64[4-9]\d)\d{12}\Z|35(?:2[89]|[3-8]\d)\d{12}\Z|62\d{14}\Z",
        text,
    )
    return bool(ranges) and len(text) <= 16 and len(separators) <= 1 and len(set(text)) > 1 and is_luhn(text)


def is_iban(value: str) -> bool:
    """An IBAN: ISO 7064 MOD 97-10 (ISO 13616-1), and the country's format in SWIFT's registry.

    Some countries have further check digits in their account numbers. Neither standard includes them, so they are not
    checked.
    """
    from stdnum import iban

    return iban.is_valid(value, check_country=False) and _is_varied(iban.compact(value)[4:])


def is_public_ip(value: str) -> bool:
    """An address that may identify a person or machine: globally routable (IANA special-purpose registries).

    Private, loopback, link-local, documentation and multicast addresses, netmasks and well-known resolvers are not, nor
    are networks (x.x.0.0, an interface identifier of zero: RFC 4291 section 2.6.1), blocks of IPv6 that nobody has, and
    numbers that people count (12.34.56.78, 7.7.7.7). 192.88.99.0/24 counts as public although it is retired (RFC 7526).
    """
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return is_public_ip(str(address.ipv4_mapped))
        # No network has 2000::/16 or 3000::/4: 3ffe::/16 was given back (RFC 3701), 3fff::/20 is for texts (RFC 9637).
        held, host = 0x2001 <= int(address) >> 112 < 0x3000, int(address) & (1 << 64) - 1
        return held and address.is_global and host > 0 and str(address) not in RESOLVERS
    if value.split(".")[0] in {"0", "255"} or value in RESOLVERS or value.endswith(".0.0") or _is_counted(value):
        return False
    if value.startswith(("192.0.0.", "1.1.1.", "1.2.3.")):  # of the IETF (RFC 6890), and of APNIC's research
        return False
    return (address.is_global or value.startswith("192.88.99.")) and not address.is_multicast


def _is_counted(value: str) -> bool:
    """Whether an IPv4 address is typed by counting: equal numbers, or digits or numbers that follow one another."""
    numbers = [int(part) for part in value.split(".")]
    text = value.replace(".", "")
    follows = {b - a for a, b in pairwise(numbers)}
    return follows in ({0}, {1}, {-1}) or text in "12345678901234567890" or text in "98765432109876543210"


def is_jwt(value: str) -> bool:
    """A signed token: the first part is JSON with an `alg` (RFC 7515 section 4.1.1)."""
    head = value.split(".")[0]
    try:
        decoded = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, RecursionError):
        return False
    return isinstance(decoded, dict) and "alg" in decoded


def is_private_key(value: str) -> bool:
    """A PEM block with a real body: 64 base64 characters, 24 of them in one run. Headers alone, as in code, fail."""
    body = re.sub(r"-----[A-Z0-9 ]{4,60}-----", " ", value)
    runs = re.findall(r"[A-Za-z0-9+/=_-]{8,}", body)
    return any(len(run) >= 24 and entropy(run) >= 2.5 for run in runs) and sum(map(len, runs)) >= 64


def is_mailbox(value: str) -> bool:
    """A mail address with a plausible host: a known top-level domain, two characters before it, not in RFC 2606."""
    local, _, host = value.rpartition("@")
    labels = host.split(".")
    top = labels[-1]
    if top not in (top.lower(), top.upper()) or top.lower() not in TOP_LEVEL or DOCUMENTATION.search(host.lower()):
        return False
    if len(local) > 64 or ".." in local or any(not x or x[0] == "-" or x[-1] == "-" for x in labels):
        return False
    # `logo@2x.ps` is a picture, `pkg@1.2.co` a version, `w@x.to` a product.
    return (
        len(labels[-2]) > 1
        and not re.match(r"\d+x\.|\d+\.\d", host)
        and not (len(labels) == 2 and len(local) == 1 and len(host) < 6)
    )


def is_phone(value: str) -> bool:
    """An international number (ITU-T E.164): an assigned country code, and a number of digits that the country uses.

    North American numbers 555-01xx are reserved for fiction and fail. No country code is a prefix of another.
    """
    text = _digits(value)
    if text.startswith("1"):
        return len(text) == 11 and _is_american(text[1:])
    code = next((text[:n] for n in (1, 2, 3) if text[:n] in PHONE_LENGTHS), None)
    if code is None or len(set(text)) < 4 or text in "1234567890" * 3:
        return False
    rest = re.sub(r"(?<=\D)\(0\)", "", value) if "(0)" in value else value
    return len(_digits(rest)) - len(code) in PHONE_LENGTHS[code]


def is_national_phone(value: str) -> bool:
    """A national phone number: 9 to 12 digits that begin with 0, or ten digits of the North American plan."""
    text = _digits(value)
    if text.startswith("0"):
        return 9 <= len(text) <= 12 and len(set(text)) > 3 and text not in "0123456789" * 3
    return len(text) == 10 and _is_american(text)


def _is_american(text: str) -> bool:
    """Ten digits of the North American plan: area and exchange begin with 2 to 9, and it is not a fictional number."""
    return text[0] in "23456789" and text[3] in "23456789" and text[3:8] != "55501" and len(set(text)) > 3


def is_us_ssn(value: str) -> bool:
    """A US social security number: every group can be issued (20 CFR 422.103, randomised since 2011)."""
    text = _digits(value)
    return text not in {"123456789", "111223333"} and _conforms("us.ssn", text)  # both are printed on sample cards


def is_nhs(value: str) -> bool:
    """A UK NHS number: ten digits, weights 10 to 2, modulo 11 (NHS Data Dictionary)."""
    text = _digits(value)
    return _conforms("gb.nhs", text) and _is_varied(text)


def is_nir(value: str) -> bool:
    """A French NIR: key = 97 - number modulo 97; Corsica's 2A and 2B count as 19 and 18."""
    return _conforms("fr.nir", value.replace("-", ""))


def is_bsn(value: str) -> bool:
    """A Dutch BSN: nine digits, modulo 11 with weight -1 for the last digit."""
    text = _digits(value)
    return len(text) == 9 and _conforms("nl.bsn", text) and _is_varied(text)


def is_pesel(value: str) -> bool:
    """A Polish PESEL: weights 1, 3, 7, 9, modulo 10, and an existing date in one of five centuries."""
    return _conforms("pl.pesel", _digits(value))


def is_aadhaar(value: str) -> bool:
    """An Indian Aadhaar number: twelve digits, the first from 2 to 9, not a palindrome, Verhoeff's check digit."""
    text = _digits(value)
    return _conforms("in_.aadhaar", text) and _is_varied(text)


def is_cpf(value: str) -> bool:
    """A Brazilian CPF: two check digits, modulo 11."""
    text = _digits(value)
    return _conforms("br.cpf", text) and _is_varied(text)


def is_dni(value: str) -> bool:
    """A Spanish DNI or NIE: the letter is the number modulo 23 (Real Decreto 1553/2005)."""
    text = value.replace(".", "")
    return _conforms("es.dni", text) or _conforms("es.nie", text)


VALIDATORS: dict[str, Callable[[str], bool]] = {
    "aadhaar": is_aadhaar,
    "bsn": is_bsn,
    "card": is_card,
    "cpf": is_cpf,
    "dni": is_dni,
    "generated": is_generated,
    "iban": is_iban,
    "jwt": is_jwt,
    "luhn": is_luhn,
    "mailbox": is_mailbox,
    "nhs": is_nhs,
    "nir": is_nir,
    "password": is_password,
    "pem": is_private_key,
    "pesel": is_pesel,
    "phone": is_phone,
    "phone-national": is_national_phone,
    "public-ip": is_public_ip,
    "secret": is_secret,
    "token": is_token,
    "us-ssn": is_us_ssn,
}
