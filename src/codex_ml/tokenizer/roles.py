"""Find the begin, end, pad and unknown tokens of a foreign tokenizer, and whether it adds BOS to plain text.

A Hugging Face folder names them in up to four files. The first file that names a role counts, in this order:
tokenizer_config.json, special_tokens_map.json, the post-processor of tokenizer.json (BOS only), and the ids in the
model's config.json, if the model is in the same folder. Used by: tokenizer.local_tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROLES = ("eos", "bos", "pad", "unk")


def named_tokens(
    configs: list[dict[str, Any]], model: Mapping[str, Any], processor: Any, special: Mapping[int, str]
) -> dict[str, str]:
    """Role -> text of its token, for each role that a file names.

    Args:
        configs: tokenizer_config.json and special_tokens_map.json, in this order; {} for a missing file.
        model: config.json of the model in the same folder; empty if there is none.
        processor: post_processor of tokenizer.json, or None.
        special: id -> text of the special tokens. If config.json names an ordinary token, the id is only the default
            of a configuration class, such as 1 and 2 of Llama, and is ignored.
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
        number = number[0] if isinstance(number, list) and number else number  # the first of several end tokens
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
    """Whether the tokenizer adds BOS to plain text.

    As in transformers: add_bos_token decides if it is set; else the post-processor. For a SentencePiece .model the
    default is True.
    """
    if isinstance(flag := config.get("add_bos_token"), bool):
        return flag
    return sentencepiece or first_token(processor) is not None


def bos_processor(bos: str, number: int) -> dict[str, Any]:
    """The post-processor that puts BOS before a text (and before each text of a pair), as in tokenizer.json."""
    token = [{"SpecialToken": {"id": bos, "type_id": kind}} for kind in (0, 1)]
    text = [{"Sequence": {"id": name, "type_id": kind}} for kind, name in enumerate("AB")]
    return {
        "type": "TemplateProcessing",
        "single": [token[0], text[0]],
        "pair": [token[0], text[0], token[1], text[1]],
        "special_tokens": {bos: {"id": bos, "ids": [number], "tokens": [bos]}},
    }
