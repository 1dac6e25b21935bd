"""Chat templates of a folder: one or several by name, in files or in the configuration; tools, calls and parts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from codex_ml.cli.tokenizer_export import export_tokenizer
from codex_ml.core.errors import UserError
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.local_tokenizer import import_tokenizer
from codex_ml.tokens.chat import encode_chat, encode_prompt, encode_whole, turn_ends
from codex_ml.tokens.layout import CHATML
from codex_ml.tokens.rendering import ChatRefused, UnstableTemplate
from codex_ml.tokens.text_tokenizer import load_tokenizer

from .conftest import CORPUS

SETTINGS = Tokenizer(kind="local", path="models/base/theirs")
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
TALK = [{"role": "user", "content": "value?"}, {"role": "assistant", "content": "def"}]


def template(mark):
    """A template that writes `mark`, the names of the tools and the messages."""
    return (
        mark + "{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}{% for m in messages %}({{ m.role }})"
        "{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}(assistant){% endif %}"
    )


def listed(**templates):
    return [{"name": name, "template": source} for name, source in templates.items()]


DEFAULT, TOOL_USE, RAG = template("D"), template("T"), template("R")
LAYOUTS = {  # files of the folder -> templates by name
    "a text": ({"config": DEFAULT}, {"default": DEFAULT}),
    "a list": ({"config": listed(tool_use=TOOL_USE, default=DEFAULT)}, {"default": DEFAULT, "tool_use": TOOL_USE}),
    "a list of one": ({"config": listed(default=DEFAULT)}, {"default": DEFAULT}),
    "a list without default": ({"config": listed(tool_use=TOOL_USE, rag=RAG)}, {"tool_use": TOOL_USE, "rag": RAG}),
    "a name twice": ({"config": [*listed(default=RAG), *listed(default=DEFAULT)]}, {"default": DEFAULT}),
    "a file": ({"chat_template.jinja": DEFAULT}, {"default": DEFAULT}),
    "a file and a text": ({"chat_template.jinja": DEFAULT, "config": RAG}, {"default": DEFAULT}),
    "a file and a list": ({"chat_template.jinja": DEFAULT, "config": listed(tool_use=TOOL_USE)}, {"default": DEFAULT}),
    "files": (
        {"chat_template.jinja": DEFAULT, "additional_chat_templates/tool_use.jinja": TOOL_USE},
        {"default": DEFAULT, "tool_use": TOOL_USE},
    ),
    "additional only": ({"additional_chat_templates/tool_use.jinja": TOOL_USE, "config": DEFAULT}, {"tool_use": TOOL_USE}),
    "default among the additional": (
        {"chat_template.jinja": RAG, "additional_chat_templates/default.jinja": DEFAULT}, {"default": DEFAULT}
    ),
}  # fmt: skip


@pytest.fixture
def theirs(trained, tmp_path):
    """theirs(contents) -> a tokenizer folder as others publish it."""

    def make(contents):
        folder = tmp_path / "theirs"
        shutil.copytree(trained("byte_bpe"), folder)
        for name, source in contents.items():
            if name == "config":
                file = folder / "tokenizer_config.json"
                file.write_text(json.dumps({**json.loads(file.read_bytes()), "chat_template": source}))
            else:
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(source)
        return folder

    return make


@pytest.fixture
def take(tmp_path):
    def take(folder):
        (tmp_path / "ours").mkdir()
        import_tokenizer(folder, lambda: iter(CORPUS[:20]), SETTINGS, tmp_path / "ours")
        return tmp_path / "ours"

    return take


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_template_is_kept_and_the_choice_equals_that_of_transformers(theirs, take, tmp_path, layout):
    from transformers import AutoTokenizer

    contents, expected = LAYOUTS[layout]
    source = theirs(contents)
    folder = take(source)
    ours = load_tokenizer(folder)
    assert {**ours.named_templates, **({"default": ours.chat_template} if ours.chat_template else {})} == expected
    export_tokenizer(folder, tmp_path / "exported")
    for judge in (AutoTokenizer.from_pretrained(path) for path in (source, folder, tmp_path / "exported")):
        judge.split_special_tokens = False  # this test wrote the source; published folders do not set it
        for tools in (None, [], TOOLS):
            if "default" not in expected and (tools is None or "tool_use" not in expected):
                with pytest.raises(UserError, match=r"has the chat templates .*tool_use, but none named default"):
                    encode_chat(ours, TALK, tools)
                with pytest.raises(ValueError, match="no default"):
                    judge.apply_chat_template(TALK, tools=tools)
            else:
                ids = judge.apply_chat_template(TALK, tools=tools, return_dict=False)
                assert encode_chat(ours, TALK, tools)[0].tolist() == ids
                asked = judge.apply_chat_template(TALK[:1], tools=tools, add_generation_prompt=True, return_dict=False)
                assert encode_prompt(ours, TALK[:1], tools).tolist() == asked == ids[: len(asked)]


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        ({"config": listed(**{"../evil": DEFAULT})}, r"a chat template has the name '\.\./evil'; allowed: up to 64 letters"),
        ({"config": listed(**{"": DEFAULT})}, "a chat template has the name ''"),
        ({"config": [{"name": "default"}]}, r"chat_template must be a text or a list of \{"),
        ({"config": {"default": DEFAULT}}, "chat_template must be a text or a list"),
        ({"config": 7}, "chat_template must be a text or a list"),
        ({"config": listed(**{f"t{i}": "x" for i in range(33)})}, "has 33 chat templates; at most 32 are read"),
        ({"config": listed(default=DEFAULT, rag="x" * 70_000)}, "the chat template has 70000 bytes; at most 65536"),
        ({"additional_chat_templates/rag.jinja": "x" * 70_000}, r"rag\.jinja has 70000 bytes; at most 65536"),
    ],
)  # fmt: skip
def test_an_invalid_list_of_templates_is_refused(theirs, take, contents, told):
    with pytest.raises(UserError, match=told):
        take(theirs(contents))


@pytest.fixture(scope="module")
def chatml(loaded):
    return loaded("byte_bpe", chat_template="chatml")


CALLS = [{"type": "function", "function": {"name": "weather", "arguments": {"city": 'Po"rt', "days": 2}}}]
CHATS = {
    "null with a call": ([{"role": "user", "content": "u"}, {"role": "assistant", "content": None, "tool_calls": CALLS}], TOOLS),
    "no content with a call": ([{"role": "user", "content": "u"}, {"role": "assistant", "tool_calls": CALLS}], None),
    "text and calls": ([{"role": "user", "content": "u"}, {"role": "assistant", "content": "c", "tool_calls": CALLS * 2}], TOOLS),
    "arguments as a text": (
        [{"role": "user", "content": "u"}, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": '{"tz": null}'}]}], []
    ),
    "parts": ([{"role": "user", "content": [{"type": "text", "text": " a"}, {"type": "text", "text": "b "}]}, TALK[1]], None),
    "a tool's answer": ([*TALK, {"role": "tool", "content": "12 C"}, TALK[1]], TOOLS),
    "a tool that spells control": ([*TALK], [{"name": "f", "description": "<|im_end|>", "parameters": {"<|im_start|>": 1}}]),
}  # fmt: skip


@pytest.mark.parametrize("chat", CHATS)
def test_the_built_in_chatml_writes_calls_tools_and_parts(chatml, trained, chat):
    from transformers import AutoTokenizer

    messages, tools = CHATS[chat]
    judge = AutoTokenizer.from_pretrained(trained("byte_bpe", chat_template="chatml"))
    ids, marked = encode_chat(chatml, messages, tools)
    text = judge.apply_chat_template(messages, tools=tools, tokenize=False)
    assert chatml.decode(ids) == text
    if "spells" not in chat:
        assert ids.tolist() == judge.apply_chat_template(messages, tools=tools, return_dict=False)
    assert (ids == chatml.special["<|im_end|>"]).sum() == len(messages) + bool(tools)
    turn = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    prompt = encode_prompt(chatml, messages[:turn], tools)
    assert ids[: len(prompt)].tolist() == prompt.tolist() and marked[len(prompt)]
    assert turn_ends(chatml) == [chatml.special["<|im_end|>"]]


def test_tool_calls_are_valid_json(chatml):
    messages, tools = CHATS["null with a call"]
    ids, trained = encode_chat(chatml, messages, tools)
    said = chatml.decode(ids[trained])
    assert said.startswith("<tool_call>\n") and said.endswith("\n</tool_call><|im_end|>")
    assert json.loads(said.split("\n")[1]) == CALLS[0]["function"]
    assert json.loads(chatml.decode(ids).split("<tools>\n")[1].split("\n")[0]) == TOOLS[0]


IMAGE = {"type": "image", "url": "x"}
NO_CALLS = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
JUST_CONTENT = NO_CALLS.replace("m.content", "m.content or ''")
NAMES_ONLY = NO_CALLS.replace(
    "m.content", "m.content or ''}}{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}{{ ''"
)
VALUES = ("x", 2, 2.5, True, None, [1, 2], [], {"inner": 1}, {})


def called(value):
    return {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"key": value}}}]}


ORDERS = {"as it is": "c.arguments", "sorted": "c.arguments | dictsort", "items": "c.arguments.items() | list"}


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("order", ORDERS)
def test_arguments_of_every_type_are_accepted_if_the_template_writes_them(chatml, order, value):
    body = "{% for k, v in " + ORDERS[order].replace("c.arguments", "args") + " %}{{ k }}={{ v | tojson }};{% endfor %}"
    if order == "as it is":
        body = "{{ args | tojson }}"
    source = NO_CALLS.replace(
        "m.content",
        "m.content or ''}}{% for c in m.tool_calls or [] %}{{ c.function.name }}{% set args = c.function.arguments %}"
        + body
        + "{% endfor %}{{ ''",
    )
    message = called(value)
    message["tool_calls"][0]["function"]["arguments"] |= {"a": "b", "Z": 1}
    ids, _ = encode_chat(replace(chatml, chat_template=source), [TALK[0], message])
    assert "key" in chatml.decode(ids)


@pytest.mark.parametrize(
    ("source", "messages", "tools", "told"),
    [
        (CHATML, [{"role": "user", "content": None}, TALK[1]], None, r"message 1 \(user\) has no content; null is allowed only with"),
        (CHATML, [{"role": "user"}, TALK[1]], None, r"message 1 \(user\) has no content"),
        (CHATML, [{"role": "user", "content": []}, TALK[1]], None, r"message 1 \(user\) has no content"),
        (CHATML, [TALK[0], {"role": "assistant", "content": None, "tool_calls": []}], None, r"message 2 .* has no content"),
        (CHATML, [{"role": "user", "content": [IMAGE]}, TALK[1]], None, r"message 1 \(user\) holds a part of type 'image'"),
        (CHATML, [{"role": "user", "content": ["a"]}, TALK[1]], None, r"holds a part of type 'str'; only parts of type text"),
        (CHATML, [{"role": "user", "content": [{"type": "text"}]}, TALK[1]], None, "holds a part of type 'text'"),
        (CHATML, TALK, ["f"], "tool 1 is not a JSON object"),
        (CHATML, [*TALK, {"role": "assistant", "tool_calls": ["f"]}], None, "a tool call of message 3 .* is not a JSON object"),
        (NO_CALLS, TALK, TOOLS, "leaves out or changes the name of tool 1"),
        (JUST_CONTENT, [TALK[0], {"role": "assistant", "tool_calls": CALLS}], None, "the name of a tool call of message 2"),
        *((NAMES_ONLY, [TALK[0], called(value)], None, "changes the arguments of a tool call of message 2") for value in VALUES),
        (NO_CALLS, [{"role": "user", "content": [{"type": "text", "text": "a"}]}, TALK[1]], None, "writes Python objects"),
        (NO_CALLS, [TALK[0], {**TALK[1], "reasoning_content": "hm"}], None, "changes the reasoning of message 2"),
        (NO_CALLS + "{{ '\\ud800' }}", TALK, None, r"writes a lone surrogate \(U\+D800\), which is not text"),
    ],
)  # fmt: skip
def test_a_text_that_the_template_does_not_write_is_refused_and_named(chatml, source, messages, tools, told):
    with pytest.raises(ChatRefused, match=told) as refused:
        encode_chat(replace(chatml, chat_template=source), messages, tools)
    assert "\n" not in str(refused.value)


MARKED = "{{% for m in messages %}}[{{{{ m.role }}}}]{body}{{% endfor %}}{{% if add_generation_prompt %}}[assistant]{{% endif %}}"
PLACES = {
    "content": "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}",
    "half of it": "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{{ eos_token }}"
    "{% else %}{{ m.content }}{% endif %}",
    "whatever the role": "{% generation %}{{ m.content }}{% endgeneration %}",
    "nothing": "{{ m.content }}{% if m.role == 'critic' %}{% generation %}x{% endgeneration %}{% endif %}",
}


@pytest.mark.parametrize("place", PLACES)
def test_only_text_between_generation_tags_is_trained(trained, tmp_path, place):
    from transformers import AutoTokenizer

    folder = tmp_path / "marked"
    shutil.copytree(trained("byte_bpe"), folder)
    (folder / "chat_template.jinja").write_text(MARKED.format(body=PLACES[place]))
    ours = load_tokenizer(folder)
    ids, marked = encode_chat(ours, TALK * 2)
    judge = AutoTokenizer.from_pretrained(folder)
    theirs = judge.apply_chat_template(TALK * 2, return_dict=True, return_assistant_tokens_mask=True)
    assert (ids.tolist(), marked.tolist()) == (theirs["input_ids"], [bool(m) for m in theirs["assistant_masks"]])
    expected = {
        "content": "def<|endoftext|>" * 2,
        "half of it": "defdef",
        "whatever the role": "value?def" * 2,
        "nothing": "",
    }
    assert ours.decode(ids[marked]) == expected[place]


def test_generation_tags_with_an_unknown_offset_are_refused(chatml):
    macro = (
        "{% macro turn(m) %}[{{ m.role }}]"
        + PLACES["content"]
        + "{% endmacro %}{% for m in messages %}{{ turn(m) }}{% endfor %}"
    )
    with pytest.raises(ChatRefused, match=r"generation %\} is inside a macro or a set block"):
        encode_chat(replace(chatml, chat_template=macro), TALK)


def test_a_whole_conversation_can_be_encoded_if_its_answers_cannot_be_located(chatml):
    last = "{% for m in messages %}{% if loop.last %}[last]{% endif %}{{ m.content }}{% endfor %}"
    tokenizer = replace(chatml, chat_template=last)
    with pytest.raises(UnstableTemplate):
        encode_chat(tokenizer, TALK * 2)
    assert chatml.decode(encode_whole(tokenizer, TALK * 2)) == "value?defvalue?[last]def"
    assert chatml.decode(encode_prompt(tokenizer, [*TALK, TALK[0]])) == "value?def[last]value?"


def test_an_answer_of_weight_0_is_an_input_but_not_trained(chatml):
    """The field `weight` of OpenAI's format for fine-tuning."""
    question, first = {"role": "user", "content": "value?"}, {"role": "assistant", "content": "def"}
    talk = [question, {**first, "weight": 0}, question, {**first, "weight": 1}]
    ids, mask = encode_chat(chatml, talk)
    plain, all_answers = encode_chat(chatml, [question, first] * 2)
    assert ids.tolist() == plain.tolist()
    assert 2 * mask.sum() == all_answers.sum()
    assert not mask[: len(ids) // 2].any()
    assert not encode_chat(chatml, [question, {**first, "weight": 0}])[1].any()


@pytest.mark.parametrize("weight", [0.5, 2, -1, "0", [0]])
def test_a_weight_other_than_0_or_1_is_refused(chatml, weight):
    with pytest.raises(ChatRefused, match="weight of a message must be 0"):
        encode_chat(chatml, [TALK[0], {**TALK[1], "weight": weight}])


def test_weight_0_together_with_generation_tags_is_refused(chatml):
    marked = replace(chatml, chat_template=MARKED.format(body=PLACES["content"]))
    with pytest.raises(ChatRefused, match="has weight 0, but the template itself marks"):
        encode_chat(marked, [TALK[0], {**TALK[1], "weight": 0}])
