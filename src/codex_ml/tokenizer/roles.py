"""Which tokens of a foreign tokenizer begin, end and pad, and whether plain text gets its BOS added.

Used by: tokenizer, kind local. Folders of the Hugging Face layout say it in up to four files. The first one that names
a role counts: tokenizer_config.json, special_tokens_map.json, the post-processor of tokenizer.json (BOS only), and the
ids of the model's config.json where the model lies in the same folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROLES = ("eos", "bos", "pad", "unk")


def named_tokens(
    configs: list[dict[str, Any]], model: Mapping[str, Any], processor: Any, special: Mapping[int, str]
) -> dict[str, str]:
    """Text of the token of each role that something names.

    Args:
        configs: tokenizer_config.json and special_tokens_map.json, in this order; {} for one that is not there.
        model: config.json of the model beside the tokenizer; empty for none.
        processor: post_processor of tokenizer.json, or None.
        special: id -> text of the special tokens. An id of config.json that is ordinary text is the default of a
            configuration class, such as 1 and 2 of Llama, and names nothing.
    """
    named: dict[str, str] = {}
    for role in ROLES:
        for config in configs:
            token = config.get(f"{role}_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str) and token:
                named.setdefault(role, token)
    if first := first_token(processor):
        named.setdefault("bos", first)
    for role in ("eos", "bos", "pad"):
        number = model.get(f"{role}_token_id")
        number = number[0] if isinstance(number, list) and number else number  # of several ends, the first
        if type(number) is int and number in special:
            named.setdefault(role, special[number])
    return named


def first_token(processor: Any) -> str | None:
    """The special token that a post-processor puts before a text, or None."""
    if not isinstance(processor, dict):
        return None
    kind = processor.get("type")
    if kind == "Sequence":
        found = (first_token(step) for step in processor.get("processors") or () if isinstance(step, dict))
        return next(filter(None, found), None)
    if kind in ("BertProcessing", "RobertaProcessing"):
        pair = processor.get("cls")
        return pair[0] if isinstance(pair, list) and pair and isinstance(pair[0], str) else None
    single = processor.get("single") if kind == "TemplateProcessing" else None
    if not isinstance(single, list) or not single or not isinstance(single[0], dict):
        return None
    token = single[0].get("SpecialToken")
    name = token.get("id") if isinstance(token, dict) else None
    return name if isinstance(name, str) else None


def adds_bos(config: Mapping[str, Any], processor: Any, *, sentencepiece: bool) -> bool:
    """Whether the tokenizer gives plain text a BOS.

    As in transformers: add_bos_token decides where it is there; else the post-processor, or for a SentencePiece .model
    the default of its classes, which is yes.
    """
    if isinstance(flag := config.get("add_bos_token"), bool):
        return flag
    return sentencepiece or first_token(processor) is not None


def bos_processor(bos: str, number: int) -> dict[str, Any]:
    """The post-processor that puts BOS before a text (and before both of a pair), as tokenizer.json spells it."""
    token = [{"SpecialToken": {"id": bos, "type_id": kind}} for kind in (0, 1)]
    text = [{"Sequence": {"id": name, "type_id": kind}} for kind, name in enumerate("AB")]
    return {
        "type": "TemplateProcessing",
        "single": [token[0], text[0]],
        "pair": [token[0], text[0], token[1], text[1]],
        "special_tokens": {bos: {"id": bos, "ids": [number], "tokens": [bos]}},
    }
