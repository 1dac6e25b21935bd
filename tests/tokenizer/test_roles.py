"""Which token begins a document, for each file that can name it. No text begins with two of them."""

from __future__ import annotations

import json
import shutil

import pytest

from codex_ml.core.errors import UserError
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.local_tokenizer import import_tokenizer
from codex_ml.tokens.chat import encode_chat, encode_prompt
from codex_ml.tokens.text_tokenizer import load_tokenizer

from .conftest import CORPUS, END, PAD

BOS, EOS = "<s>", "</s>"  # ids 418 and 419 of `theirs`
SETTINGS = Tokenizer(kind="local", path="models/base/theirs")
MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def template(first, *, last=None):
    tokens = {
        name: {"id": name, "ids": [0], "tokens": [name]} for name in (first, last) if name
    }  # the ids differ on purpose
    single = [{"SpecialToken": {"id": first, "type_id": 0}}] if first else []
    single += [{"Sequence": {"id": "A", "type_id": 0}}]
    single += [{"SpecialToken": {"id": last, "type_id": 0}}] if last else []
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": tokens}


LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
CLS = {"sep": [EOS, 419], "cls": [BOS, 418], "add_prefix_space": False, "trim_offsets": True}
# tokenizer_config.json, post-processor, config.json of the model -> BOS, and whether plain text gets it
FOLDERS = {
    "llama 2, fast": ({"bos_token": BOS, "add_bos_token": True, "add_eos_token": False}, template(BOS), {}, BOS, True),
    "add_bos_token and no post-processor": ({"bos_token": BOS, "add_bos_token": True}, None, {}, BOS, True),
    "llama 3": ({"bos_token": BOS}, {"type": "Sequence", "processors": [LEVEL, template(BOS)]}, {}, BOS, True),
    "as an object": ({"bos_token": {"content": BOS, "special": True}}, template(BOS), {}, BOS, True),
    "named by the post-processor only": ({}, template(BOS), {}, BOS, True),
    "roberta": ({"bos_token": BOS}, {"type": "RobertaProcessing", **CLS}, {}, BOS, True),
    "both ends": ({"bos_token": BOS}, template(BOS, last=EOS), {}, BOS, True),
    "only the end, as t5": ({}, template(None, last=EOS), {}, None, False),
    "named and not added, as phi 3": ({"bos_token": BOS, "add_bos_token": False}, template(BOS), {}, BOS, False),
    "named and not added, as smollm2": ({"bos_token": BOS}, None, {}, BOS, False),
    "named by the model only, as qwen 2": ({"bos_token": None}, None, {"bos_token_id": 418}, BOS, False),
    "the tokenizer before the model": ({"bos_token": BOS}, None, {"bos_token_id": 419}, BOS, False),
    "the default of a class is no name": ({}, None, {"bos_token_id": 1, "eos_token_id": 2}, None, False),
    "no number": ({}, None, {"bos_token_id": True}, None, False),
    "outside the vocabulary": ({}, None, {"bos_token_id": 128_000}, None, False),
    "byte level alone": ({}, LEVEL, {}, None, False),
    "none": ({}, None, {}, None, False),
}  # fmt: skip


@pytest.fixture
def theirs(trained, tmp_path):
    """theirs(tokenizer_config, post-processor, config.json) -> a folder of a byte-level BPE with BOS and EOS."""
    folder = tmp_path / "theirs"
    shutil.copytree(trained("byte_bpe", special_tokens=(BOS, EOS)), folder)

    def make(config, processor, model):
        description = json.loads((folder / "tokenizer.json").read_bytes()) | {"post_processor": processor}
        (folder / "tokenizer.json").write_text(json.dumps(description))
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS, "pad_token": PAD, **config}))
        if model:
            (folder / "config.json").write_text(json.dumps({"model_type": "llama", **model}))
        return folder

    return make


@pytest.fixture
def take(tmp_path):
    def take(folder, settings=SETTINGS):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        import_tokenizer(folder, lambda: iter(CORPUS[:20]), settings, out)
        return load_tokenizer(out), out

    return take


@pytest.mark.parametrize(("config", "processor", "model", "bos", "added"), FOLDERS.values(), ids=FOLDERS)
def test_the_bos_is_found_in_each_file_that_can_name_it(theirs, take, config, processor, model, bos, added):
    tokenizer, out = take(theirs(config, processor, model))
    eos = tokenizer.special[EOS]
    number = tokenizer.special[bos] if bos else None
    assert (tokenizer.bos, tokenizer.end) == (number, eos)
    assert tokenizer.begin == (eos if bos is None else number)
    assert json.loads((out / "tokenizer_config.json").read_bytes()).get("bos_token") == bos

    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(out, local_files_only=True)
    assert (plain.bos_token_id, plain.eos_token_id) == (number, eos)
    text = CORPUS[1]
    own = tokenizer.encode(text).tolist()
    assert plain(text)["input_ids"] == ([number, *own] if added else own)
    assert number not in own
    assert plain(text, add_special_tokens=False)["input_ids"] == own
    assert plain(text, text)["input_ids"] == ([number, *own, number, *own] if added else own * 2)
    for writes in (True, False):
        check_chats(out, number, writes=writes)


def check_chats(folder, bos, *, writes):
    """A template and a post-processor must not both write BOS (OpenRLHF/OpenRLHF 393, huggingface/trl 1400)."""
    from transformers import AutoTokenizer

    source = "{{ bos_token }}" if writes else ""
    source += "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + eos_token }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(source + "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}")
    tokenizer = load_tokenizer(folder)
    ids, _ = encode_chat(tokenizer, MESSAGES)
    if bos is not None:
        assert ids.tolist().count(bos) == writes
        assert (ids[0] == bos) == writes
    plain = AutoTokenizer.from_pretrained(folder, local_files_only=True, split_special_tokens=False)
    assert plain.apply_chat_template(MESSAGES, return_dict=False) == ids.tolist()
    prompt = encode_prompt(tokenizer, MESSAGES[:1])
    assert prompt.tolist() == ids[: len(prompt)].tolist()


def test_an_end_token_named_only_by_the_model_is_used_and_the_first_of_several_counts(theirs, take):
    folder = theirs({"eos_token": None, "pad_token": None}, None, {"eos_token_id": [419, 416], "pad_token_id": 418})
    tokenizer, _ = take(folder)
    assert (tokenizer.end, tokenizer.pad) == (419, 418)


def test_a_bos_that_is_not_in_the_vocabulary_is_refused(theirs, take):
    with pytest.raises(UserError, match="bos_token '<bos>' is not in its vocabulary"):
        take(theirs({"bos_token": "<bos>"}, None, {}))


def test_a_sentencepiece_file_with_a_bos_piece_adds_it(take, tmp_path):
    import sentencepiece

    file = tmp_path / "their.model"
    with file.open("wb") as writer:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_writer=writer, vocab_size=400, model_type="bpe",
            byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
    tokenizer, out = take(file)
    judge = sentencepiece.SentencePieceProcessor(str(file))

    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(out, local_files_only=True)
    assert tokenizer.begin == judge.bos_id()
    assert plain("def f(value)")["input_ids"] == judge.encode("def f(value)", add_bos=True)


@pytest.mark.parametrize("kind", ["byte_bpe", "whitespace"])
def test_a_trained_tokenizer_begins_documents_with_its_end_token(loaded, kind):
    tokenizer = loaded(kind)
    assert tokenizer.begin == tokenizer.bos == tokenizer.end == tokenizer.special[END]
