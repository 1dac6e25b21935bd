"""Kinds of tokenizers, and chat templates. Used by: kinds, test_fuzz."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from .kind import TEXT, Kind, Read
from .mutations import changed_bytes, changed_json, changed_message, changed_text, json_bytes


def _trained(folder: Path, kind: str) -> Path:
    from codex_ml.tokenizer.config import Tokenizer
    from codex_ml.tokenizer.training import train_tokenizer

    made = folder / kind
    made.mkdir()
    texts = [f"def function_{n}(value):\n    return value + {n}\n" for n in range(60)]
    train_tokenizer(lambda: iter(texts), Tokenizer(kind=kind, vocab_size=420), made)
    return made


class SameProcess:
    """Answers in this process what a `LimitedChild` answers, a hundred times as fast. This process has limits too."""

    def __init__(self, prepare: Any, **_: Any) -> None:
        self._answer = prepare()

    def __enter__(self) -> SameProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: dict[str, Any]) -> Any:
        from codex_ml.core.child import AnswerError, _answered

        answer = _answered(self._answer, json.dumps(request))
        if "error" in answer:
            raise AnswerError(answer["error"])
        return json.loads(json.dumps(answer["ok"]))

    def close(self) -> None:
        pass


def _imported(folder: Path) -> Read:
    """Import a tokenizer as the stage does, then load it and encode with it."""
    from codex_ml.tokenizer import local_tokenizer
    from codex_ml.tokenizer.config import Tokenizer
    from codex_ml.tokens import confined_tokenizer
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    local_tokenizer.LimitedChild = SameProcess  # type: ignore[misc, assignment]
    confined_tokenizer.LimitedChild = SameProcess  # type: ignore[misc, assignment]
    local_tokenizer.PROBES = ["a" * 300 + "!", *local_tokenizer.HARD]
    settings = Tokenizer(kind="local", path="models/base/theirs", special_tokens=("</s>",))

    def read(file: Path) -> bool:
        theirs, out = folder / "theirs", folder / "out"
        for made in (theirs, out):
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
        shutil.copyfile(file, theirs / file.name)
        (theirs / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
        local_tokenizer.import_tokenizer(theirs, lambda: iter([TEXT]), settings, out)
        tokenizer = load_tokenizer(out)
        for text in (TEXT, "", " a b", "\0\U0010ffff"):
            tokenizer.decode(tokenizer.encode(text))
        return True

    return read


def protobuf_kind(folder: Path) -> Kind:
    """The parser of SentencePiece files alone, which is fast enough for many inputs."""
    from codex_ml.tokenizer.sentencepiece_file import read_model

    whole = sentencepiece_kind(folder)
    return Kind(whole.name, whole.valid, whole.make, lambda file: bool(read_model(file.read_bytes(), file).pieces))


def sentencepiece_kind(folder: Path) -> Kind:
    seeds = [
        (_trained(folder, f"sentencepiece_{kind}") / "tokenizer.model").read_bytes() for kind in ("bpe", "unigram")
    ]
    tiny = bytes.fromhex("0a0e0a053c756e6b3e1500000000180212020801")  # one unknown piece
    seeds.append(tiny + b"".join(b"\x0a\x08\x0a\x01%c\x15\0\0\0\xbf" % letter for letter in b"abc_ "))

    def make(rng: Random) -> bytes:
        seed = rng.choice(seeds)
        return changed_message(seed, rng) if rng.random() < 0.7 else changed_bytes(seed, rng, others=seeds)

    return Kind("theirs.model", seeds[0], make, _imported(folder), ends=True)


def tokenizer_kind(folder: Path) -> Kind:
    seeds = []
    for kind in ("byte_bpe", "sentencepiece_unigram", "wordpiece"):
        description = json.loads((_trained(folder, kind) / "tokenizer.json").read_bytes())
        description["post_processor"] = {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}
        seeds.append(description)
    rules: list[Any] = [
        {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "a" * 900}, {"type": "Prepend", "prepend": "x"},
        {"type": "Split", "pattern": {"Regex": r"\s+(?!\S)"}, "behavior": "Isolated", "invert": False},
        {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "NFKC"}, {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
        {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
    ]  # fmt: skip

    def make(rng: Random) -> bytes:
        seed = dict(rng.choice(seeds))
        if rng.random() < 0.7:  # the vocabulary is most of the file, and its pieces are much alike
            part = rng.choice(("normalizer", "pre_tokenizer", "decoder", "added_tokens", "post_processor", "model"))
            if part != "model":
                seed[part] = rng.choice(rules) if rng.random() < 0.3 else changed_json(seed[part], rng, odd=rules)
            else:
                few = {key: value for key, value in seed["model"].items() if key not in ("vocab", "merges")}
                seed["model"] = {**seed["model"], **_mapping(changed_json(few, rng))}
        else:
            seed = changed_json(seed, rng, odd=rules)
        return json_bytes(seed, rng)

    return Kind("tokenizer.json", json.dumps(seeds[0]).encode(), make, _imported(folder), ends=True)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"type": value}


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
JINJA = (
    "{% for m in messages %}", "{% endfor %}", "{% if true %}", "{% else %}", "{% endif %}", "{{ messages }}", "{{ x.y }}",
    "{{ '\\ud800' }}", "{{ '\\x00' }}", "{{ 9 ** 999 }}", "{{ 'a' * 99999999 }}", "{{ raise_exception('no') }}",
    "{% generation %}", "{% endgeneration %}", "{% set x = messages %}", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{{ tools | tojson }}", "{{ strftime_now('%Y') }}", "{{ ''.__class__ }}", "{{ messages | map(attribute='x') | list }}",
    "{{ range(3) | random }}", "{{ lipsum() }}", "{#", "-%}", "{{-", "| trim", "| upper", "\ue000", "\0", "[0]", "(", "}}",
    "{% break %}", "{% include 'x' %}", "{{ cycler('a').next() }}", "{{ namespace(a=1).a }}", "{{ 1 / 0 }}", "{{ eos_token }}",
)  # fmt: skip


def template_kind(folder: Path) -> Kind:
    from codex_ml.tokenizer.foreign_files import read_chat_templates
    from codex_ml.tokens.chat import encode_chat, encode_prompt
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    tokenizer = load_tokenizer(_trained(folder, "byte_bpe"))
    chat = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c\n"}]

    def read(file: Path) -> bool:
        templates = read_chat_templates(file.parent)
        loaded = replace(tokenizer, chat_template=templates["default"])
        encode_prompt(loaded, chat[:1])
        return len(encode_chat(loaded, chat)[0]) > 0

    def make(rng: Random) -> bytes:
        text = changed_text(CHATML, rng, JINJA).encode("utf-8", "surrogatepass")
        return changed_bytes(text, rng) if rng.random() < 0.1 else text

    return Kind("chat_template.jinja", CHATML.encode(), make, read)
