"""How a record with a prompt and a completion becomes text: `pack.template`.

A template is applied to documents, so training and evaluation read the same text. The text of the template is in
pack.json and training.json: a model is asked as it was trained, whatever params.yaml or a package says later.
Used by: pack, evaluate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from codex_ml.core.plugin_lock import load_locked
from codex_ml.core.plugins import UnusablePlugin
from codex_ml.documents.document import Document
from codex_ml.documents.instructions import INPUT
from codex_ml.modeling.pack_files import PLAIN, PromptTemplate

PLACEHOLDER = re.compile(r"\{(instruction|input)\}")
# Taori et al. 2023, Stanford Alpaca: PROMPT_DICT of train.py.
ALPACA = PromptTemplate(
    name="alpaca",
    prompt="Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Response:",
    prompt_with_input="Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}"
    "\n\n### Input:\n{input}\n\n### Response:",
)
CHAT = PromptTemplate(name="chat", chat=True)


def templated(documents: Iterable[Document], template: PromptTemplate) -> Iterator[Document]:
    """Yield the documents, records with a prompt in the form of the template; all others as they are."""
    return (_applied(document, template) for document in documents)


def _applied(document: Document, template: PromptTemplate) -> Document:
    if document.prompt is None or document.completion is None:
        return document
    if template.chat:
        turns = (("user", document.prompt), ("assistant", document.completion))
        messages = [{"role": role, "content": content} for role, content in turns]
        return replace(document, prompt=None, completion=None, messages=json.dumps(messages, ensure_ascii=False))
    return replace(document, prompt=_prompt(document.prompt, template))


def _prompt(prompt: str, template: PromptTemplate) -> str:
    instruction, border, given = prompt.partition(INPUT)
    text = template.prompt_with_input
    if not (border and text):
        text, instruction = template.prompt, prompt
    values = {"instruction": instruction, "input": given}
    return PLACEHOLDER.sub(lambda match: values[match[1]], text)  # in one pass: a record may hold "{input}"


def template_named(name: str) -> PromptTemplate:
    """The built-in template with a name, or that of another package (entry point `codex_ml.templates`).

    A package gives a mapping with the text `prompt` and, if it wants, `prompt_with_input`.

    Raises:
        UserError: when it is not installed, or is something else.
    """
    built_in = {template.name: template for template in (PLAIN, ALPACA, CHAT)}
    if name in built_in:
        return built_in[name]
    found = load_locked("templates", name)
    allowed = {"prompt", "prompt_with_input"}
    if not isinstance(found, Mapping) or not {"prompt"} <= found.keys() <= allowed:
        raise UnusablePlugin("templates", name, "must be a mapping with prompt and, if wanted, prompt_with_input")
    if not all(isinstance(text, str) for text in found.values()):
        raise UnusablePlugin("templates", name, "must map to texts")
    for key, needed in (("prompt", "{instruction}"), ("prompt_with_input", "{input}")):
        if key in found and needed not in found[key]:
            raise UnusablePlugin("templates", name, f"has no {needed} in {key}, so the record would be lost")
    return PromptTemplate(name=name, **dict(found))
