"""Foreign tokenizers are kept unchanged if that is safe, and else refused with the reason."""

from __future__ import annotations

import json
import shutil

import pytest

from codex_ml.core.errors import UserError
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.local_tokenizer import import_tokenizer
from codex_ml.tokenizer.training import train_tokenizer
from codex_ml.tokens.text_tokenizer import load_tokenizer

from .conftest import CORPUS, END, PAD

SETTINGS = Tokenizer(kind="local", path="models/base/theirs")


@pytest.fixture
def take(tmp_path):
    """take(folder) -> (the imported tokenizer, its folder)"""

    def take(path, settings=SETTINGS):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        import_tokenizer(path, lambda: iter(CORPUS[:20]), settings, out)
        return load_tokenizer(out), out

    return take


@pytest.fixture
def theirs(trained, tmp_path):
    """A copy of a byte-level BPE folder to change: edit(tokenizer.json as a dict), config(...)."""
    folder = tmp_path / "theirs"
    shutil.copytree(trained("byte_bpe"), folder)

    class Theirs:
        path = folder

        def edit(self, change, name="tokenizer.json"):
            value = json.loads((folder / name).read_bytes())
            change(value)
            (folder / name).write_text(json.dumps(value))
            return folder

    return Theirs()


def test_files_in_the_dvc_cache_are_read_and_files_ignored_by_dvc_are_refused(take, theirs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / ".dvc/cache/files/md5/ab"
    cache.mkdir(parents=True)
    expected = (take(theirs.path)[1] / "tokenizer.json").read_bytes()
    for file in list(theirs.path.iterdir()):
        file.rename(cache / file.name)
        file.symlink_to(cache / file.name)
    assert (take(theirs.path)[1] / "tokenizer.json").read_bytes() == expected
    (tmp_path / ".dvcignore").write_text("/theirs/tokenizer.json\n")
    with pytest.raises(UserError, match=r"theirs/tokenizer\.json is in no hash: DVC leaves it out"):
        take(theirs.path)


def test_ids_stay_and_truncation_dropout_and_post_processors_are_removed(take, theirs, loaded):
    def change(value):
        ids = {"id": END, "ids": [418], "tokens": [END]}
        single = [{"SpecialToken": {"id": END, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        value["post_processor"] = {
            "type": "TemplateProcessing",
            "single": single,
            "pair": single,
            "special_tokens": {END: ids},
        }
        value["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
        value["model"]["dropout"] = 0.5

    def rename(value):
        value |= {
            "auto_map": {"AutoTokenizer": ["evil.Evil", None]},
            "clean_up_tokenization_spaces": True,
            "name_or_path": "x",
        }

    theirs.edit(change)
    tokenizer, out = take(theirs.edit(rename, "tokenizer_config.json"))
    reference = loaded("byte_bpe")
    for text in CORPUS[:9]:
        assert tokenizer.encode(text).tolist() == reference.encode(text).tolist()
    assert (tokenizer.end, tokenizer.pad, tokenizer.vocab_size) == (reference.end, reference.pad, reference.vocab_size)
    assert set(json.loads((out / "tokenizer_config.json").read_bytes())) == {
        "bos_token", "eos_token", "pad_token", "clean_up_tokenization_spaces", "tokenizer_class",
    }  # fmt: skip
    assert tokenizer.decode(tokenizer.encode("x , y . don 't")) == "x , y . don 't"


def test_text_cannot_forge_a_role_token_that_the_folder_does_not_mark_special(take, theirs):
    def forget(value):
        for token in value["added_tokens"]:
            token["special"] = False

    tokenizer, _ = take(theirs.edit(forget))
    assert tokenizer.special.keys() == {END, PAD}
    assert tokenizer.end not in tokenizer.encode(f"a{END}b")


def test_the_chat_template_is_kept_byte_for_byte(take, theirs):
    template = "{{ bos_token }}\r\n{% for m in messages %}\t{{ m.content }}{% endfor %}\u00e9\n\n"
    theirs.edit(lambda value: value.update(chat_template=template), "tokenizer_config.json")
    tokenizer, out = take(theirs.path)
    assert tokenizer.chat_template == template
    assert (out / "chat_template.jinja").read_bytes() == template.encode()
    (theirs.path / "chat_template.jinja").write_bytes(b"own file\r\n")
    assert take(theirs.path, SETTINGS.model_copy(update={"chat_template": "chatml"}))[0].chat_template == "own file\r\n"


def test_chatml_and_user_tokens_get_ids_after_the_vocabulary(take, theirs):
    settings = SETTINGS.model_copy(update={"chat_template": "chatml", "special_tokens": ("<|tool|>",)})
    tokenizer, _ = take(theirs.path, settings)
    assert [tokenizer.special[name] for name in ("<|im_start|>", "<|im_end|>", "<|tool|>")] == [420, 421, 422]
    assert tokenizer.vocab_size == 423


def test_chatml_tokens_that_the_folder_has_as_ordinary_tokens_become_special(take, theirs):
    """One is in the vocabulary only, one is added but not special: both keep their ids, and no text becomes them."""

    def change(value):
        value["model"]["vocab"]["<|im_start|>"] = 420
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
        value["added_tokens"].append({"id": 421, "content": "<|im_end|>", **plain})

    theirs.edit(change)
    tokenizer, _ = take(theirs.path, SETTINGS.model_copy(update={"chat_template": "chatml"}))
    assert (tokenizer.special["<|im_start|>"], tokenizer.special["<|im_end|>"], tokenizer.vocab_size) == (420, 421, 422)
    assert not {420, 421} & set(tokenizer.encode("a<|im_start|>b<|im_end|>").tolist())


def test_without_a_pad_token_the_unknown_token_pads_else_the_end_token(take, theirs):
    theirs.edit(lambda value: value.pop("pad_token"), "tokenizer_config.json")
    tokenizer, _ = take(theirs.path)
    assert tokenizer.pad == tokenizer.end
    theirs.edit(lambda value: value.update(unk_token=PAD), "tokenizer_config.json")
    assert take(theirs.path)[0].pad == 419


def test_a_folder_without_an_end_token_is_refused(take, theirs):
    theirs.edit(lambda value: value.pop("eos_token"), "tokenizer_config.json")
    with pytest.raises(UserError, match=r"names no eos_token, which must end every document; in a folder, add"):
        take(theirs.path)
    theirs.edit(lambda value: value.update(eos_token="</s>"), "tokenizer_config.json")
    with pytest.raises(UserError, match="eos_token '</s>' is not in its vocabulary"):
        take(theirs.path)
    tokenizer, _ = take(theirs.path, SETTINGS.model_copy(update={"special_tokens": ("</s>",)}))
    assert tokenizer.end == 420


def split_by(pattern):
    def change(value):
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        value["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, level]}

    return change


@pytest.mark.parametrize("pattern", [r"(a+)+$", "(", "x" * 5000, r"(a|aa)+$"])
def test_an_exploding_or_invalid_regular_expression_is_refused_and_the_parent_survives(take, theirs, pattern):
    with pytest.raises(UserError, match=r"tokenizer\.json(: a regular expression| cannot be used: )"):
        take(theirs.edit(split_by(pattern)))


def test_a_regular_expression_of_a_published_tokenizer_is_accepted(take, theirs):
    usual = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer, _ = take(theirs.edit(split_by(usual)))
    assert tokenizer.decode(tokenizer.encode("def f(x):\r\n  return 12345")) == "def f(x):\r\n  return 12345"


def set_id(number):
    def change(value):
        value["model"]["vocab"]["!"] = number

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda v: v.update(decoder={"type": "Evil"}), "decoder 'Evil' is not allowed; allowed: BPEDecoder"),
        (lambda v: v.update(normalizer=["NFC"]), "normalizer 'list' is not allowed"),
        (lambda v: v.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "File"}]}), "pre_tokenizer 'File'"),
        (lambda v: v.update(model={"type": "Pickle"}), "model 'Pickle' is not allowed"),
        (lambda v: v.update(model={"type": ["BPE"]}), r"model \"\['BPE'\]\" is not allowed"),
        (lambda v: v.update(decoder={"type": "a" * 5000}), f"decoder '{'a' * 40}' is not allowed"),
        (lambda v: v.pop("model"), "model 'NoneType' is not allowed"),
        (set_id(-1), "ids that are integers from 0 to 16777215"),
        (set_id("7"), "ids that are integers"),
        (set_id(2**40), "ids that are integers"),
        (set_id(5), "two of its tokens share an id"),
        (lambda v: v.update(added_tokens=[{"id": 1}]), "added_tokens is not a list of tokens with a content"),
        (lambda v: v["added_tokens"].append(v["added_tokens"][0]), "two added tokens share an id or a text"),
        (lambda v: v["model"].update(merges=[["no", "piece"]]), "cannot be used: "),
        (lambda v: v["model"].update(vocab=[]), "expected at least one token|two of its tokens|cannot be used"),
    ],
)  # fmt: skip
def test_a_part_that_is_not_allowed_is_refused_and_named(take, theirs, change, told):
    with pytest.raises(UserError, match=told):
        take(theirs.edit(change))


def test_an_added_token_without_special_needs_a_role(take, theirs):
    """The role of the end token makes it special; tokenizers itself refuses the file of any other ("missing field")."""

    def plain(value):
        ids = [*value["model"]["vocab"].values(), *(token["id"] for token in value["added_tokens"])]
        value["added_tokens"].append({**value["added_tokens"][0], "id": max(ids) + 1, "content": "<plain>"})
        del value["added_tokens"][-1]["special"]

    _, folder = take(theirs.edit(lambda value: value["added_tokens"][0].pop("special")))
    assert json.loads((folder / "tokenizer.json").read_bytes())["added_tokens"][0]["special"] is True
    theirs.edit(lambda value: value["added_tokens"][0].update(special=True))
    with pytest.raises(UserError, match=r"cannot be used: .*missing field `special`"):
        take(theirs.edit(plain))


def test_file_sizes_are_limited(take, theirs, monkeypatch):
    from codex_ml.tokenizer import local_tokenizer as local

    monkeypatch.setitem(local.SIZES, "template", 10)
    (theirs.path / "chat_template.jinja").write_text("x" * 11)
    with pytest.raises(UserError, match=r"chat_template\.jinja has 11 bytes; at most 10 are read"):
        take(theirs.path)
    monkeypatch.setitem(local.SIZES, "tokenizer.json", 10)
    with pytest.raises(UserError, match=r"tokenizer\.json has \d+ bytes; at most 10 are read"):
        take(theirs.path)


def test_a_word_level_end_token_that_a_document_can_spell_is_refused(take, trained, tmp_path):
    folder = tmp_path / "words"
    shutil.copytree(trained("whitespace"), folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "return", "pad_token": "[UNK]"}))
    with pytest.raises(
        UserError, match="the special token 'return' is also an ordinary token, so a document could forge it"
    ):
        take(folder)


def test_a_sentencepiece_file_keeps_its_own_control_pieces(take, tmp_path):
    import sentencepiece

    file = tmp_path / "their.model"
    options = {
        "vocab_size": 400,
        "model_type": "bpe",
        "byte_fallback": True,
        "hard_vocab_limit": False,
        "minloglevel": 2,
    }
    with file.open("wb") as writer:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=writer, **options)
    tokenizer, out = take(file)
    judge = sentencepiece.SentencePieceProcessor(str(file))
    assert (tokenizer.end, tokenizer.bos, tokenizer.unk, tokenizer.pad) == (judge.eos_id(), judge.bos_id(), 0, 0)
    assert tokenizer.encode("def f(value): </s>").tolist() == judge.encode("def f(value): </s>")
    assert tokenizer.decode(tokenizer.encode("def f(value)")) == "def f(value)"
    assert (out / "tokenizer.model").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04cbuiltins\neval\n",
        b"\x0a\xff\xff\xff\x7f",
        b"\x0a\x06\x08\x80\xbc\xc1\x96\x0b",  # a piece whose text is the number 3,000,000,000
        b"\x10\x05",  # a number where the trainer's settings are expected
        b"\x0a\x07\x0a\x01a\x1a\x02\x01\x02",  # a piece whose type is text
    ],
)
def test_a_file_that_is_not_a_model_is_refused(take, tmp_path, content):
    (tmp_path / "their.model").write_bytes(content)
    with pytest.raises(UserError, match=r"their\.model cannot be used as a SentencePiece model"):
        take(tmp_path / "their.model")


def test_a_path_without_a_tokenizer_is_refused(take, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match=r"holds neither a tokenizer\.json nor one SentencePiece \.model file \(found 0\)"
    ):
        take(tmp_path / "empty")
    with pytest.raises(UserError, match=r"no such folder, .model or .gguf file; put it below models/base"):
        take(tmp_path / "nothing")


def test_kind_local_reads_the_path_of_params(theirs, tmp_path, monkeypatch, loaded):
    (tmp_path / "models/base").mkdir(parents=True)
    theirs.path.rename(tmp_path / "models/base/theirs")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    train_tokenizer(lambda: iter(CORPUS), SETTINGS, tmp_path / "out")
    assert load_tokenizer(tmp_path / "out").special == loaded("byte_bpe").special
