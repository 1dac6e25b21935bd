"""A GGUF file becomes a folder with the same weights, in a child process with few rights."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from codex_ml.core.errors import UserError
from codex_ml.core.gguf_file import refuse_impossible
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.gguf_tokenizer import unpack_tokenizer
from codex_ml.tokenizer.local_tokenizer import import_tokenizer
from codex_ml.train.model.gguf_weights import unpack_weights
from codex_ml.train.model.local_model import load_local

pytestmark = pytest.mark.costly
gguf = pytest.importorskip("gguf")

UNPACK_WEIGHTS = "codex_ml.train.model.local_model.unpack_weights"
UNPACK_TOKENIZER = "codex_ml.tokenizer.local_tokenizer.unpack_tokenizer"
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def gguf_name(name):
    """llama.cpp's name of a parameter of Qwen2; it stores these weights unchanged."""
    name = name.removeprefix("model.")
    for ours, theirs in {"embed_tokens.": "token_embd.", "norm.": "output_norm.", "lm_head.": "output."}.items():
        if name.startswith(ours):
            return name.replace(ours, theirs)
    _, layer, rest = name.split(".", 2)
    module, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{NAMES[module]}.{kind}"


def write_gguf(file, model):
    writer, config = gguf.GGUFWriter(str(file), "qwen2"), model.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("gpt2")
    letters = [*(chr(ord("!") + number) for number in range(config.vocab_size - 3)), "!!"]
    writer.add_token_list(["<end>", "<pad>", *letters])
    writer.add_token_types([3, 3, *([1] * len(letters))])
    writer.add_token_merges(["! !"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(1)
    for name, tensor in model.named_parameters():
        writer.add_tensor(gguf_name(name), tensor.detach().numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """A model, its GGUF file, and the folder that `unpack_weights` makes of it."""
    place = tmp_path_factory.mktemp("gguf")
    model = tiny("qwen2", kv_heads=1)
    write_gguf(place / "model.gguf", model)
    (place / "config.json").write_text('{"auto_map": {"AutoConfig": "evil.Config"}}')  # the child must not look here
    unpack_weights(place / "model.gguf", place / "folder")
    return model, place / "model.gguf", place / "folder"


@pytest.fixture(scope="module")
def tokenizer(made):
    """The folder that `unpack_tokenizer` makes of the GGUF file."""
    folder = made[1].parent / "tokenizer"
    unpack_tokenizer(made[1], folder)
    return folder


def test_weights_come_out_as_they_went_in(made, tmp_path):
    model, _, folder = made
    again = load_local(folder, attention="eager", scratch=tmp_path)
    own = dict(model.named_parameters())
    for name, tensor in again.named_parameters():
        assert torch.equal(tensor, own[name]), name
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=0, atol=1e-6)


def test_folders_have_settings_or_the_tokenizer_and_nothing_to_run(made, tokenizer):
    _, _, folder = made
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert {file.name for file in tokenizer.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "qwen2"
    assert "quantization_config" not in config
    assert "evil" not in json.dumps(config)
    tokens = json.loads((tokenizer / "tokenizer.json").read_text())
    assert (tokens["model"]["vocab"]["!"], tokens["model"]["vocab"]["!!"]) == (2, 63)


def test_a_gguf_file_is_a_model_path_and_leaves_no_scratch(made, tmp_path, monkeypatch):
    model, file, folder = made

    def copy(path, target):
        assert path == file
        shutil.copytree(folder, target)

    monkeypatch.setattr(UNPACK_WEIGHTS, copy)  # one child is enough for this file
    again = load_local(file, attention="sdpa", scratch=tmp_path / "scratch")
    assert again.config._attn_implementation == "sdpa"
    assert torch.equal(again.model.norm.weight, model.model.norm.weight)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_gguf_file_is_unpacked_where_dvc_hashes_nothing(made, tokenizer, tmp_path, monkeypatch):
    """The .dvcignore of this repository names /.cache, where train unpacks, and people set TMPDIR there too."""
    model, file, folder = made
    base = tmp_path / "models/base/model.gguf"
    base.parent.mkdir(parents=True)
    shutil.copy(file, base)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".dvcignore").write_text("/.cache\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ".cache"))
    for name, source in ((UNPACK_WEIGHTS, folder), (UNPACK_TOKENIZER, tokenizer)):
        monkeypatch.setattr(name, lambda path, target, source=source: shutil.copytree(source, target))
    path = base.relative_to(tmp_path)
    again = load_local(path, attention="eager", scratch=Path(".cache/models"))
    assert torch.equal(again.model.norm.weight, model.model.norm.weight)
    (tmp_path / "tokenizer").mkdir()
    settings = Tokenizer(kind="local", path=str(path))
    import_tokenizer(path, lambda: iter(["def f(x): return x\n"]), settings, tmp_path / "tokenizer")
    assert (tmp_path / "tokenizer/tokenizer.json").is_file()


@pytest.mark.parametrize("place", [".dvc/cache/files/md5/ab", "elsewhere"])
def test_a_gguf_file_may_be_a_link_into_dvcs_cache_and_no_other(made, tmp_path, monkeypatch, place):
    model, file, folder = made
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(UNPACK_WEIGHTS, lambda path, target: shutil.copytree(folder, target))
    (tmp_path / ".dvc").mkdir(exist_ok=True)
    (tmp_path / place).mkdir(parents=True)
    shutil.copy(file, tmp_path / place / "model")
    (tmp_path / "link.gguf").symlink_to(tmp_path / place / "model")
    if place == "elsewhere":
        with pytest.raises(
            UserError, match=r"link\.gguf is a symbolic link; replace it with a copy of what it points to"
        ):
            load_local(tmp_path / "link.gguf", attention="eager", scratch=tmp_path / "scratch")
        return
    again = load_local(tmp_path / "link.gguf", attention="eager", scratch=tmp_path / "scratch")
    assert torch.equal(again.model.norm.weight, model.model.norm.weight)


def test_a_gguf_file_is_a_tokenizer_path_too(made, tokenizer, tmp_path, monkeypatch):
    _, file, _ = made

    def copy(path, target):
        assert path == file
        shutil.copytree(tokenizer, target)

    monkeypatch.setattr(UNPACK_TOKENIZER, copy)  # the fixture has started a child for this file
    for place, source in (("of the file", file), ("of the folder", tokenizer)):
        (tmp_path / place).mkdir()
        settings = Tokenizer(kind="local", path="models/base/model.gguf")
        import_tokenizer(source, lambda: iter(["def f(x): return x\n"]), settings, tmp_path / place)
    names = sorted(path.name for path in (tmp_path / "of the folder").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "of the file").iterdir())
    for name in names:
        assert (tmp_path / "of the file" / name).read_bytes() == (tmp_path / "of the folder" / name).read_bytes()


def test_a_file_that_is_no_gguf_is_refused_without_a_child(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a child was started"))
    (tmp_path / "model.gguf").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError) as error:
        unpack_weights(tmp_path / "model.gguf", tmp_path / "folder")
    assert str(error.value) == (
        f"{tmp_path}/model.gguf is neither a folder nor a GGUF file; model.path names one of these"
    )


def test_a_damaged_file_is_one_line_and_leaves_nothing(made, tmp_path):
    _, file, _ = made
    bad = tmp_path / "model.gguf"
    content = bytearray(file.read_bytes())
    content[16:24] = (2**62).to_bytes(8, "little")  # the number of settings
    bad.write_bytes(content)
    with pytest.raises(UserError) as error:
        unpack_weights(bad, tmp_path / "folder")
    assert str(error.value).startswith(f"{bad} could not be read as GGUF: ")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize("unpack", [unpack_weights, unpack_tokenizer])
def test_the_child_may_use_what_a_file_of_this_size_needs(made, tmp_path, monkeypatch, unpack):
    asked = {}

    class Child(contextlib.nullcontext):
        def __init__(self, prepare, **limits):
            super().__init__(self)
            asked.update(limits)

        def ask(self, request):
            raise UserError("stopped here")

    monkeypatch.setattr("codex_ml.core.gguf_file.LimitedChild", Child)
    with pytest.raises(UserError, match=r"model\.gguf could not be read as GGUF: stopped here"):
        unpack(made[1], tmp_path / "folder")
    size = made[1].stat().st_size
    assert (asked["memory"], asked["seconds"], asked["once"]) == (
        40 * size + (2 << 30),
        300 + 1200 * size // 2**30,
        True,
    )
    assert list(tmp_path.iterdir()) == []


def test_no_warning_of_the_child_is_lost_in_the_parent(made, caplog, tmp_path):
    with caplog.at_level(logging.WARNING):
        load_local(made[2], attention="eager", scratch=tmp_path)
    assert caplog.records == []


def changed(file, key, value):
    """The file with a different value of a 32-bit setting."""
    content = bytearray(file.read_bytes())
    at = content.index(b"qwen2." + key) + len(b"qwen2." + key) + 4  # after the type
    content[at : at + 4] = value.to_bytes(4, "little")
    return bytes(content)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"block_count", 1 << 20, r"qwen2\.block_count is 1,048,576, but the file holds \d"),
        (
            b"context_length",
            (1 << 31) - 1,
            r"context_length is 2,147,483,647, but the longest supported context is 134,",
        ),
        (b"embedding_length", 1 << 30, r"embedding_length is 1,073,741,824, but the longest side of any tensor is \d"),
        (b"feed_forward_length", 1 << 31, r"feed_forward_length is 2,147,483,648, but the longest side"),
        (b"attention.head_count", 1 << 24, r"attention\.head_count is 16,777,216, but the longest side"),
        (b"attention.head_count_kv", 1 << 24, r"attention\.head_count_kv is 16,777,216, but the longest side"),
    ],
)
def test_a_header_that_asks_for_more_than_the_file_holds_is_refused_without_a_child(
    key, value, reason, made, tmp_path, monkeypatch
):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a child was started"))
    bad = tmp_path / "model.gguf"
    bad.write_bytes(changed(made[1], key, value))
    with pytest.raises(UserError, match=reason):
        unpack_weights(bad, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_no_cut_header_and_no_huge_number_in_it_costs_anything(made, tmp_path, monkeypatch):
    import tracemalloc

    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a child was started"))
    whole, bad = made[1].read_bytes(), tmp_path / "model.gguf"
    end = whole.index(b"output_norm.weight")  # within the header
    tracemalloc.start()
    for number in range(8, end, 7):
        for content in (whole[:number], whole[:number] + b"\xff" * 8 + whole[number + 8 :]):
            bad.write_bytes(content)
            try:
                refuse_impossible(bad)
            except UserError as error:
                assert str(error).startswith(f"{bad} could not be read as GGUF: ")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
