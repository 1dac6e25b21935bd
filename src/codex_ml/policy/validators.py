"""Checks that a value can be what its shape says: check digits, address ranges, decodable parts.

Each is a pure function of the value. A random ten-digit number passes a mod-11 check once in eleven times, so such a
check never stands alone: rules ask for a word of context as well (speakeasy-api/gram#5106).
"""

from __future__ import annotations

import base64
import ipaddress
import json
import math
import re
from collections import Counter
from collections.abc import Callable

from codex_ml.policy.constants import (
    DOCUMENTATION,
    IBAN_LENGTHS,
    PHONE_LENGTHS,
    RESOLVERS,
    TOP_LEVEL,
)
from codex_ml.policy.randomness import is_generated, is_password, is_token

# The dihedral group D5 of Verhoeff's scheme (1969): products and the permutation of position.
_D5 = [[(i + j) % 5 + 5 * (j > 4) if i < 5 else (i - j) % 5 + 5 * (j < 5) for j in range(10)] for i in range(10)]
_VERHOEFF = [list(range(10)), [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
for _ in range(6):
    _VERHOEFF.append([_VERHOEFF[-1][_VERHOEFF[1][digit]] for digit in range(10)])


def entropy(value: str) -> float:
    """Shannon entropy of the characters, in bits a character; 0 for an empty text."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


def digits(value: str) -> list[int]:
    """The ASCII digits of a value, without its separators."""
    return [ord(c) - 48 for c in value if "0" <= c <= "9"]


def luhn(numbers: list[int]) -> int:
    """The Luhn sum modulo 10 (ISO/IEC 7812-1 annex B); 0 is valid."""
    return sum(n if i % 2 == 0 else n * 2 - 9 * (n > 4) for i, n in enumerate(reversed(numbers))) % 10


def is_card(value: str) -> bool:
    """A payment card: issuer range, its length, one kind of separator, Luhn."""
    numbers = digits(value)
    text = "".join(map(str, numbers))
    separators = {c for c in value if not c.isdigit()}
    ranges = re.match(
        r"4\d{15}\Z|(?:5[1-5]|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12,14}\Z|3[47]\d{13}\Z"
        r"|3(?:0[0-5]|[689]\d)\d{11}\Z|(?:6011|65\d\d|64[4-9]\d)\d{12}\Z|35(?:2[89]|[3-8]\d)\d{12}\Z|62\d{14}\Z",
        text,
    )
    return bool(ranges) and len(text) <= 16 and len(separators) <= 1 and len(set(text)) > 1 and luhn(numbers) == 0


def is_iban(value: str) -> bool:
    """An IBAN: the country's length and ISO 7064 MOD 97-10 (ISO 13616-1)."""
    text = value.replace(" ", "").upper()
    if IBAN_LENGTHS.get(text[:2]) != len(text) or not text.isalnum() or not text.isascii() or not text[2:4].isdigit():
        return False
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1 and len(set(text[4:])) > 2


def is_public_ip(value: str) -> bool:
    """An address that may lead to somebody: globally routable in form (IANA special-purpose registries).

    Private, loopback, link-local, documentation, multicast, netmask-like and well-known resolvers' are nobody's.
    192.88.99.0/24 counts as public although it is retired (RFC 7526).
    """
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return is_public_ip(str(address.ipv4_mapped))
        return address.is_global and not address.is_multicast and int(address) >> 125 == 1  # 2000::/3
    if value.split(".")[0] in {"0", "255"} or value in RESOLVERS:
        return False
    return (address.is_global or value.startswith("192.88.99.")) and not address.is_multicast


def is_jwt(value: str) -> bool:
    """A signed token: the first part is JSON with an `alg` (RFC 7515 section 4.1.1)."""
    head = value.split(".")[0]
    try:
        decoded = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, RecursionError):
        return False
    return isinstance(decoded, dict) and "alg" in decoded


def is_private_key(value: str) -> bool:
    """A block with a real body: one run of 24 base64 characters and 64 in all; headers alone in code are none."""
    body = re.sub(r"-----[A-Z0-9 ]{4,60}-----", " ", value)
    runs = re.findall(r"[A-Za-z0-9+/=_-]{8,}", body)
    return any(len(run) >= 24 and entropy(run) >= 2.5 for run in runs) and sum(map(len, runs)) >= 64


def is_mailbox(value: str) -> bool:
    """An address with a host that can exist: a known top-level domain, two letters before it, no RFC 2606 example."""
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
    """An international number (ITU-T E.164): an assigned country code and as many digits as its numbers have.

    555-01xx is fiction. No code is the beginning of another one.
    """
    text = "".join(map(str, digits(value)))
    if text.startswith("1"):
        return len(text) == 11 and _is_american(text[1:])
    code = next((text[:n] for n in (1, 2, 3) if text[:n] in PHONE_LENGTHS), None)
    if code is None or len(set(text)) < 4 or text in "1234567890" * 3:
        return False
    rest = re.sub(r"(?<=\D)\(0\)", "", value) if "(0)" in value else value
    return len(digits(rest)) - len(code) in PHONE_LENGTHS[code]


def is_national_phone(value: str) -> bool:
    """A national number: 9 to 12 digits from 0, or ten of North America."""
    text = "".join(map(str, digits(value)))
    if text.startswith("0"):
        return 9 <= len(text) <= 12 and len(set(text)) > 3 and text not in "0123456789" * 3
    return len(text) == 10 and _is_american(text)


def _is_american(text: str) -> bool:
    """Ten digits of the North American plan: area and exchange from 2 up, not one of its fictional numbers."""
    return text[0] in "23456789" and text[3] in "23456789" and text[3:8] != "55501" and len(set(text)) > 3


def is_us_ssn(value: str) -> bool:
    """A US social security number: no group that the agency never issues (20 CFR 422.103, randomised since 2011)."""
    text = "".join(map(str, digits(value)))
    area, group, serial = text[:3], text[3:5], text[5:]
    known = {"078051120", "219099999", "123456789", "111223333"}  # printed on sample cards
    wrong = area in {"000", "666"} or area[:1] == "9" or group == "00" or serial == "0000"
    return len(text) == 9 and not wrong and text not in known


def is_nhs(value: str) -> bool:
    """A UK NHS number: ten digits, weights 10 to 2, modulo 11 (NHS Data Dictionary)."""
    numbers = digits(value)
    check = 11 - sum(n * w for n, w in zip(numbers, range(10, 1, -1), strict=False)) % 11
    return len(numbers) == 10 and check != 10 and check % 11 == numbers[9] and len(set(numbers)) > 2


def is_nir(value: str) -> bool:
    """A French NIR: key = 97 - number modulo 97; Corsica's 2A and 2B count as 19 and 18."""
    text = re.sub(r"[\s.-]", "", value).upper().replace("2A", "19").replace("2B", "18")
    return len(text) == 15 and text.isdigit() and 97 - int(text[:13]) % 97 == int(text[13:])


def is_bsn(value: str) -> bool:
    """A Dutch BSN: the eleven-test with weight -1 for the last digit."""
    numbers = digits(value)
    weights = (9, 8, 7, 6, 5, 4, 3, 2, -1)
    return (
        len(numbers) == 9
        and sum(n * w for n, w in zip(numbers, weights, strict=True)) % 11 == 0
        and len(set(numbers)) > 2
    )


def is_pesel(value: str) -> bool:
    """A Polish PESEL: weights 1, 3, 7, 9, modulo 10, and a month that exists in one of five centuries."""
    numbers = digits(value)
    if len(numbers) != 11 or not 1 <= (numbers[2] * 10 + numbers[3]) % 20 <= 12 or not any(numbers[4:6]):
        return False
    return sum(n * w for n, w in zip(numbers, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), strict=True)) % 10 == 0


def is_aadhaar(value: str) -> bool:
    """An Indian Aadhaar number: twelve digits, not from 0 or 1, Verhoeff's check digit."""
    numbers = digits(value)
    check = 0
    for position, digit in enumerate(reversed(numbers)):
        check = _D5[check][_VERHOEFF[position % 8][digit]]
    return len(numbers) == 12 and numbers[0] > 1 and check == 0 and len(set(numbers)) > 2


def is_cpf(value: str) -> bool:
    """A Brazilian CPF: two check digits, modulo 11."""
    numbers = digits(value)
    if len(numbers) != 11 or len(set(numbers)) < 3:
        return False
    return all(
        sum(n * w for n, w in zip(numbers, range(k + 1, 1, -1), strict=False)) * 10 % 11 % 10 == numbers[k]
        for k in (9, 10)
    )


def is_dni(value: str) -> bool:
    """A Spanish DNI or NIE: the letter is the number modulo 23 (Real Decreto 1553/2005)."""
    text = re.sub(r"[\s.-]", "", value).upper()
    number = {"X": "0", "Y": "1", "Z": "2"}.get(text[:1], text[:1]) + text[1:-1]
    return (
        len(text) == 9
        and number.isdecimal()
        and number.isascii()
        and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1]
    )


VALIDATORS: dict[str, Callable[[str], bool]] = {
    "aadhaar": is_aadhaar,
    "bsn": is_bsn,
    "card": is_card,
    "cpf": is_cpf,
    "dni": is_dni,
    "generated": is_generated,
    "iban": is_iban,
    "jwt": is_jwt,
    "luhn": lambda value: bool(digits(value)) and luhn(digits(value)) == 0,
    "mailbox": is_mailbox,
    "nhs": is_nhs,
    "nir": is_nir,
    "password": is_password,
    "pem": is_private_key,
    "pesel": is_pesel,
    "phone": is_phone,
    "phone-national": is_national_phone,
    "public-ip": is_public_ip,
    "token": is_token,
    "us-ssn": is_us_ssn,
}
