"""Check digits against numbers of the standards' own documents, and against every single wrong digit."""

from __future__ import annotations

import random
import string
import subprocess
import sys
from itertools import product

import pytest

from codex_ml.policy.validators import VALIDATORS, entropy

# Published specimens: ISO 7812 and card schemes' test numbers, SWIFT IBAN registry, NHS Data Dictionary, INSEE,
# Rijksdienst, Wikipedia on PESEL, UIDAI's and Receita Federal's test numbers, Ministerio del Interior.
GOOD = {
    "card": ["4111 1111 1111 1111", "5555555555554444", "3782-822463-10005", "6011111111111117", "3530111333300000", "30569309025904"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "FR1420041010050500013M02606", "NO9386011117947", "MT84MALT011000012345MTLCAST001S", "LY83 0020 4800 0020 1001 2036 1", "RU0304452522540817810538091310419", "OM810180000001299123456"],
    "nhs": ["943 476 5919", "9434765919"],
    "nir": ["2 55 08 14 168 025 38", "255081416802538"],
    "bsn": ["111222333"],
    "pesel": ["44051401359"],
    "aadhaar": ["2341 2341 2346"],
    "cpf": ["529.982.247-25"],
    "dni": ["12345678Z", "X1234567L"],
    "us-ssn": ["536-90-4399", "536904399"],
    "public-ip": ["185.12.64.1", "192.88.99.1", "12.34.56.79", "14.15.16.18", "2a01:4f8::1", "2003:e1:8f00::1", "2002:ac1d:2d64::1"],
    "phone": ["+49 30 901820", "+1 202 456 1111", "+48 22 694 75 00", "+2034801234", "+246 370 9999", "+852 2810 2717", "+44 (0)20 7219 3000"],
    "phone-national": ["(202) 456-1111", "030 901820 12"],
    "mailbox": ["sam@host-of-mail.org", "r.osei+lists@mail.co.uk"],
    "luhn": ["79927398713"],
}  # fmt: skip
BAD = {
    "card": ["4111 1111-1111 1111", "0000 0000 0000 0000"],
    "iban": ["DE89 3704 0044 0532 0130 0", "XX89370400440532013000", "DE78A704004405320130B0"],
    "nhs": ["1111111111", "943476591"],
    "us-ssn": ["000-12-3456", "666-12-3456", "900-12-3456", "123-00-4567", "123-45-0000", "078-05-1120", "457-55-5462", "123-45-6789"],
    "aadhaar": ["234562265432", "1341 2341 2348"],
    "public-ip": ["10.0.0.1", "127.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "100.64.0.1", "224.0.0.1", "8.8.8.8", "192.0.0.9", "42.42.42.42", "12.34.56.78", "123.45.67.89", "98.76.54.32", "14.15.16.17", "1.2.3.200", "1.1.1.255", "85.20.0.0", "2001:db8::1", "2a01:4f8:1:2::", "3ffe::1", "3fff::1", "2000:aaa::1", "2606:4700:4700:0::1111", "::1", "fe80::1", "::ffff:10.0.0.1", "300.1.1.1"],
    "phone": ["+1 202 555 0143", "+1 102 456 1111", "+1234567", "+20240116", "+48151623", "+4815162342", "+2147483647", "+24681357", "+999123456789", "+210123456789", "+3361234567", "+85228102"],
    "mailbox": ["a@b.c", "x@y.unknowntop", "me@example.com", "a..b@host.org", "logo@2x.ps", "w@x.to", "q@kk.mT"],
    "dni": ["12345678A"],
    "jwt": ["abc.def.ghi", "eyJhIjoxfQ.x.y"],
    "pesel": ["44951401359", "00000000000", "44023013597"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_a_published_specimen_is_valid(name, value):
    assert VALIDATORS[name](value)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_an_impossible_value_is_not_valid(name, value):
    assert not VALIDATORS[name](value)


@pytest.mark.parametrize("name", ["card", "iban", "nhs", "nir", "bsn", "aadhaar", "cpf", "dni"])
def test_every_single_wrong_digit_is_noticed(name):
    for value in GOOD[name]:
        for place, digit in enumerate(value):
            for other in "0123456789" if digit.isdigit() else ():
                if other != digit:
                    assert not VALIDATORS[name](value[:place] + other + value[place + 1 :])


def test_luhn_is_the_sum_of_the_standard():
    for digits in product(range(10), repeat=3):
        doubled = [digits[0], *divmod(2 * digits[1], 10), digits[2]]
        assert VALIDATORS["luhn"]("".join(map(str, digits))) == (sum(doubled) % 10 == 0)
    assert VALIDATORS["luhn"]("0")
    assert VALIDATORS["luhn"]("1-8")


@pytest.mark.parametrize(
    ("text", "bits"), [("", 0), ("aaaa", 0), ("ab", 1), ("abcd", 2), ("aabbccdd", 2), ("aaab", 0.8112781244591328)]
)
def test_entropy_is_shannons(text, bits):
    assert entropy(text) == pytest.approx(bits, abs=1e-15)


def test_check_digits_cost_an_import_only_where_a_value_has_some():
    code = (
        "import sys\n"
        "from codex_ml.policy import scan, validators\n"
        "assert 'stdnum' not in sys.modules\n"
        "assert validators.VALIDATORS['iban']('DE89370400440532013000')\n"
        "assert 'stdnum' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(VALIDATORS))
@pytest.mark.parametrize("value", ["", " ", "x", "٣٤٥", "-", "@", ".", "\u00b2", "1" * 300])
def test_any_value_gets_an_answer(name, value):
    assert VALIDATORS[name](value) in (True, False)


@pytest.mark.parametrize(("length", "most"), [(12, 60), (16, 40), (20, 25), (32, 5)])
def test_random_text_is_generated(length, most):
    """Of 2,000 texts at most so many are taken for words."""
    rng = random.Random(length)
    texts = ["".join(rng.choices(string.ascii_letters + string.digits, k=length)) for _ in range(2000)]
    assert sum(not VALIDATORS["generated"](text) for text in texts) <= most


@pytest.mark.parametrize(
    "name",
    [
        "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", "tokenizer.eos_token",
        "getUserAccountSettingsForOrganization", "PreTrainedTokenizerFast", "models/checkpoints/step_000100/model.safetensors",
        "fineweb_edu_10BT_gpt2_uint16_v3x", "data.tokens.fineweb10B_train", "application/vnd.github.v3+json", "correct horse battery",
        "registry.acme.org/library/python:3.11-slim-bookworm", "self_attn.q_proj.weight", "https_proxy_settings_for_clients",
    ],
)  # fmt: skip
def test_names_are_not_generated(name):
    assert not VALIDATORS["generated"](name)


def test_letters_mixed_with_digits_are_a_secret_after_its_name():
    """Of 20,000 random values of 16 characters at most 4 are taken for words; 0.4 % are without a name."""
    rng = random.Random(16)
    texts = ["".join(rng.choices(string.ascii_letters + string.digits, k=16)) for _ in range(20_000)]
    mixed = [text for text in texts if any(map(str.isdigit, text))]
    assert sum(not VALIDATORS["secret"](text) for text in mixed) <= 4
    names = ("symbol2label", "Data2VecTextPreTrainedModel", "layer1.weight", "oauth2_client_v3", "SmolLM3ForCausalLM")
    assert not any(map(VALIDATORS["secret"], names))
