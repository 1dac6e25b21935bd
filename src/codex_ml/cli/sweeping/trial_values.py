"""The values of a trial, written so that DVC reads what params.yaml would have.

`dvc exp run --set-param` reads Hydra's grammar, not YAML: `08` and `.inf` are texts there, `range(1,3)` is a sweep, `~`
and `é` are errors. So each value is read as YAML and written for Hydra: https://hydra.cc/docs/advanced/override_grammar/

Used by: `codex-ml sweep`.
"""

from __future__ import annotations

import re
from typing import Any

from codex_ml.core.yaml import parse_yaml

KEY_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RESERVED = ("null", "true", "false", "inf", "nan")  # not texts to Hydra, even as keys


def value_of(text: str) -> Any:
    """The value that params.yaml has for a text of a trial.

    >>> value_of("3e-4"), value_of("[a, b]"), value_of("linear")
    (0.0003, ['a', 'b'], 'linear')
    """
    return parse_yaml(f"value: {text}", "a value of the sweep")["value"]


def leaves(params: dict[str, str]) -> dict[str, Any]:
    """Key -> value of params.yaml; a mapping is its keys, because DVC merges it with what params.yaml has.

    >>> leaves({"train.lr": "1e-3", "model.lora": "{rank: 8, alpha: 16}"})
    {'train.lr': 0.001, 'model.lora.rank': 8, 'model.lora.alpha': 16}
    """
    return {key: value for name, text in params.items() for key, value in _leaves(name, value_of(text))}


def _leaves(name: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(name, value)]
    return [leaf for key, inner in value.items() for leaf in _leaves(f"{name}.{key}", inner)]


def overrides(params: dict[str, str]) -> list[str]:
    """The settings `KEY=VALUE` of a trial, as Hydra reads them.

    >>> overrides({"train.lr": "1e-3", "train.schedule": "linear"})
    ['train.lr=0.001', "train.schedule='linear'"]

    Raises:
        ValueError: for a value that DVC cannot set; the message says which.
    """
    return [f"{key}={_written(value)}" for key, value in leaves(params).items()]


def check_value(value: Any) -> None:
    """Refuse what DVC cannot set.

    Raises:
        ValueError: with what is wrong, and what to do.
    """
    if isinstance(value, dict):
        if not value:
            raise ValueError("{} changes nothing; name the keys of the mapping")
        for key, inner in value.items():
            _check_key(key)
            check_value(inner)
    else:
        _written(value)


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_check_key(key)}:{_written(inner)}" for key, inner in value.items()) + "}"
    raise ValueError(f"{value} is a date, which DVC cannot set; quote it if it is a text")


def _quoted(text: str) -> str:
    """A text in the quotes of Hydra: backslashes count only before a quote, where they are doubled."""
    if "${" in text or text == "???":
        raise ValueError(f"DVC reads the text {text} as a reference to another value; it cannot be set")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("a text with a null character or half a character cannot be given to DVC")
    return "'" + re.sub(r"(\\*)('|\Z)", lambda end: 2 * end[1] + ("\\'" if end[2] else ""), text) + "'"


def _check_key(key: Any) -> str:
    if not isinstance(key, str) or not KEY_PART.fullmatch(key) or key.lower() in RESERVED:
        raise ValueError(f"DVC cannot set the key {key!r} of a mapping: expected letters, digits and _")
    return key
