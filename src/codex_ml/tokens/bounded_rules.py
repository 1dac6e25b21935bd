"""Whether every text can be encoded with a tokenizer's rules in time and memory that follow the length of the text.

A regular expression can take hours on one text, and a Replace rule can turn each character into a megabyte, on texts
that no trial holds. The rules of the published kinds of tokenizers cannot: this module knows them. A tokenizer with any
other rule is used in a child process with limits (tokens.confined_tokenizer), so no tokenizer is refused here.

Used by: tokens.confined_tokenizer.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GROWTH = 8.0  # all texts of the rules together may write so many bytes per byte; "▁" for a space is 3
LONGEST_PIECE = 1024  # characters; Unigram looks at so many after each character
LONGEST_WORD = 1000  # characters; WordPiece takes time that grows with the square of it
LONGEST_AFFIX = 16  # characters that BPE or WordPiece write before or after the pieces of a word
# May occur several times; every other kind occurs once, because twice the ByteLevel makes four bytes of one.
REPEATED = {"Sequence", "Replace", "Split", "Strip", "Digits", "Punctuation", "Fuse"}
# SHA-256 of the compiled rules that sentencepiece ships: nmt_nfkc, nmt_nfkc_cf, nfkc, nfkc_cf. At most 33 bytes for 3.
COMPILED = {
    "1e2c7b43d3ee9755ceaa2ac335e253d8703604e0249ee1e81156c92b46423844",
    "2c03512e62f9ed965ec90d85314211b63b5b8aa0395311ea2147eec9ff738907",
    "7e46d9e08af4b6a37991b04fb8388644c1595a0abcd0f26d6a5d575e2a3663ea",
    "d8dfef3d6db0eef0742f8b55a73aee7fce6c1e21d26a09b8d3d4b52c42a791cb",
}
# A run of one class of characters, after at most one space: it is read once. The numbers are its shortest length.
RUN = re.compile(
    r"(?: \?|\\s\?)?(?:\\[sdwrnt]|\\p\{\w+\}|\[\^?(?:[^\[\]\\&]|\\[sdwrnt]|\\p\{\w+\})+\]|[^\\\[\](){}|^$.*+?&])"
    r"(?:\+|\{(?P<least>[1-9]\d?)(?:,\d{0,2})?\})?"
)
_GPT2_WORDS = r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SUFFIXES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s|%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
)
# Expressions of published tokenizers that are no runs. Each reads a text in time that follows its length.
PUBLISHED = {
    rf"'s|'t|'re|'ve|'m|'ll|'d|{_GPT2_WORDS}",  # GPT-2
    rf"'(?:[sdmt]|ll|ve|re)|{_GPT2_WORDS}",
    rf"{_SUFFIXES}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",  # Llama 3
    rf"{_SUFFIXES}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",  # Qwen 2 and 3
    rf"{_SUFFIXES}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}",
    _CASED % ("", "", r"\p{N}") + _SPACES,  # Mistral's Tekken
    _CASED % (_SUFFIXES + "?", _SUFFIXES + "?", r"\p{N}{1,3}") + _SPACES,  # o200k
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    + _SPACES,  # DeepSeek V3
    r" ?[^(\s|[.,!?…。，、।۔،])]+",  # BLOOM
    r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",  # CLIP
    "[0-9][0-9][0-9]",  # Falcon
    r"\A ",  # ours, for SentencePiece's white space
    r"(?<! ) +\z",
    r"(?<![ ▁])[ ▁]+\z",
}


def is_bounded(tokenizer: Tokenizer) -> bool:
    """Whether this module knows all rules of a tokenizer, for encoding and decoding."""
    rules = [_rules(part) for part in (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder)]
    return _is_bounded_model(tokenizer) and _write_little([*rules[0], *rules[1]]) and _write_little(rules[2])


def _rules(part: Any) -> list[dict[str, Any]]:
    """The steps of a normalizer, a pre-tokenizer or a decoder, as in tokenizer.json."""
    rule = {} if part is None else json.loads(part.__getstate__())
    return list(_flat(rule)) if rule else []


def _flat(rule: dict[str, Any]) -> list[dict[str, Any]]:
    inner = [step for key in ("normalizers", "pretokenizers", "decoders") for step in rule.get(key, ())]
    return [rule, *(one for step in inner for one in _flat(step))]


def _write_little(rules: list[dict[str, Any]]) -> bool:
    once = [rule["type"] for rule in rules if rule["type"] not in REPEATED]
    growth = 1.0
    for rule in rules:
        if (more := _growth(rule)) is None:
            return False
        growth *= more
    return growth <= GROWTH and len(once) == len(set(once))


def _growth(rule: dict[str, Any]) -> float | None:
    """Bytes that the texts of a rule write per byte; 1 for rules whose texts are the library's; None if unknown."""
    shortest = 1
    if "pattern" in rule:
        pattern = rule["pattern"]
        text, expression = pattern.get("String"), pattern.get("Regex")
        run = RUN.fullmatch(expression) if expression is not None else None
        if expression is not None and run is None and expression not in PUBLISHED:
            return None
        shortest = len(text.encode()) if text else int((run and run["least"]) or 1)
        if text == "":
            return None
    if rule["type"] == "Precompiled":
        known = hashlib.sha256(base64.b64decode(rule["precompiled_charsmap"])).hexdigest() in COMPILED
        return 1.0 if known else None
    if rule["type"] == "Replace":
        return max(1.0, len(rule["content"].encode()) / shortest)
    if rule["type"] == "Prepend":
        return 1.0 if len(rule["prepend"]) == 1 else None  # once per text, and after each added token in it
    return 1.0


def _is_bounded_model(tokenizer: Tokenizer) -> bool:
    model = tokenizer.model
    affixes = [getattr(model, name, None) or "" for name in ("continuing_subword_prefix", "end_of_word_suffix")]
    if max(map(len, affixes)) > LONGEST_AFFIX or getattr(model, "max_input_chars_per_word", 0) > LONGEST_WORD:
        return False
    return type(model).__name__ != "Unigram" or max(map(len, tokenizer.get_vocab()), default=0) <= LONGEST_PIECE
