"""What runs in the limited child: templates and tokenizers that somebody else wrote. See codex_ml.core.child.

One JSON object a line comes in, one goes out: {"ok": result} or {"error": one line}. The parent gave a limit of memory
and, for each request, of processor time; the system ends a process that passes it.
"""

from __future__ import annotations

import importlib
import json
import random
import resource
import sys
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

RENDERED_CHARACTERS = 16 << 20


class FixedDay(datetime):
    """Templates that write the date write this one: tomorrow gives the same bytes."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> FixedDay:
        return cls(2025, 1, 1, tzinfo=tz)


def render(request: dict[str, Any]) -> dict[str, Any]:
    """Render a chat template once for each of `prefixes`, by transformers' sandbox.

    Args:
        request: template; messages; tools or None; variables, such as bos_token; prefixes: pairs of (number of
            messages, whether the generation prompt follows); generation: whether the template has the tag of this name.

    Returns:
        texts, one per prefix; generation, [begin, end) in characters of what the tag encloses in the first text.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    write: Any = render_jinja_template
    texts: list[str] = []
    spans: list[Any] = []
    for count, prompt in request["prefixes"]:
        random.seed(0)  # Jinja's `random` filter and lipsum draw from it
        marked = _recorded(request["template"]) if request["generation"] else []
        [text], generation = write(
            [request["messages"][:count]],
            tools=request["tools"],
            chat_template=request["template"],
            add_generation_prompt=prompt,
            return_assistant_tokens_mask=request["generation"],
            **request["variables"],
        )
        found = [span for of_chat in generation for span in of_chat]
        if [text[begin:end] for begin, end in found] != marked:
            raise ValueError("{% generation %} is used in a macro or a set block: its place cannot be told")
        spans = spans if texts else found
        texts.append(text)
        if sum(map(len, texts)) > RENDERED_CHARACTERS:
            raise ValueError(f"the template writes more than {RENDERED_CHARACTERS} characters")
    return {"texts": texts, "generation": spans}


def _recorded(template: str) -> list[str]:
    """A list that the next rendering of the template fills with what `{% generation %}` encloses.

    transformers counts the places of these texts from the begin of the block that is being written, which is another
    one inside a macro.
    """
    import jinja2
    from transformers.utils import chat_template_utils

    environment: Any = vars(chat_template_utils)["_compile_jinja_template"](template).environment
    tracker = next(one for one in environment.extensions.values() if hasattr(one, "_generation_support"))
    said: list[str] = []

    @jinja2.pass_eval_context
    def record(context: Any, caller: Any) -> str:
        text: str = type(tracker)._generation_support(tracker, context, caller)
        said.append(text)
        return text

    tracker._generation_support = record
    return said


def try_tokenizer(request: dict[str, Any]) -> list[list[int]]:
    """Ids of `texts` by the tokenizer.json in `file`, loaded and used here first."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(request["file"])
    tokenizer.encode_special_tokens = True
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in request["texts"]]
    for numbers in ids:
        tokenizer.decode(numbers, skip_special_tokens=False)
    return ids


def try_sentencepiece(request: dict[str, Any]) -> None:
    """Make the tokenizer.json of the .model in `file` under `to`, and prove it on `texts`."""
    model = importlib.import_module("codex_ml.tokenizer.sentencepiece_model")
    data = Path(request["file"]).read_bytes()
    tokenizer = model.to_tokenizer(model.read_model(data, Path(request["name"])))
    model.prove_equal(tokenizer, data, request["texts"])
    tokenizer.save(request["to"])


OPERATIONS = {"render": render, "try_tokenizer": try_tokenizer, "try_sentencepiece": try_sentencepiece}


def main(operation: str, memory: int, seconds: int) -> None:
    """Serve requests until stdin ends.

    Args:
        memory: bytes of address space beyond what the imports took.
        seconds: of processor time for each request.
    """
    _import(operation)
    _limit(resource.RLIMIT_AS, _address_space() + memory)
    _limit(resource.RLIMIT_CORE, 0)
    out = sys.stdout
    sys.stdout = sys.stderr  # a print by a library must not look like an answer
    print(json.dumps({"ok": "ready"}), file=out, flush=True)
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + seconds)
        print(json.dumps(_answer(operation, line)), file=out, flush=True)


def _import(operation: str) -> None:
    """Before the limits: importing takes more memory than the work."""
    if operation == "render":
        from transformers.utils import chat_template_utils

        vars(chat_template_utils)["datetime"] = FixedDay  # what its strftime_now asks
    else:
        import sentencepiece  # noqa: F401
        import tokenizers  # noqa: F401


def _answer(operation: str, line: str) -> dict[str, Any]:
    try:
        return {"ok": OPERATIONS[operation](json.loads(line))}
    except BaseException as error:  # PanicException of the Rust library is no Exception
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    try:
        resource.setrlimit(kind, (value, hard))
    except (ValueError, OSError) as error:  # macOS has no limit of address space; the parent's clock still holds
        print(f"limit {kind} not set: {error}", file=sys.stderr)


def _address_space() -> int:
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * resource.getpagesize() if statm.is_file() else 1 << 32
