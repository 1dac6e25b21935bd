"""`codex-ml export`: what it writes is the source, for those who read it; what a format cannot hold is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from codex_ml.cli.gguf_export import FIXED
from codex_ml.cli.json_outputs import output_schema
from codex_ml.cli.main import whole_app
from codex_ml.cli.model_export import ExportedFile, ExportedFolder
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.local_tokenizer import import_tokenizer
from codex_ml.tokenizer.training import train_tokenizer
from codex_ml.tokens.text_tokenizer import load_tokenizer
from codex_ml.train.config import Model
from codex_ml.train.model.build import build_model
from codex_ml.train.model.vocabulary import add_rows

from ..json_schema_checker import problems

TEXTS = [f"def f{i}(value):\n    return value + {i}\n" for i in range(50)]
VOCAB = 380


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(whole_app(), ["export", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(lambda: iter(TEXTS), Tokenizer(kind="byte_bpe", vocab_size=VOCAB), folder)
    return folder


@pytest.fixture
def model(tmp_path: Path, tokenizer: Path) -> Callable[..., Any]:
    """A model with random weights in the folder `model`, with the tokenizer."""

    def make(architecture: str, **shape: Any) -> Any:
        own = load_tokenizer(tokenizer)
        sizes = {"hidden_size": 32, "intermediate_size": 128, "layers": 2, "heads": 4, "max_positions": 64}
        made = build_model(
            Model(architecture=architecture, **{**sizes, **shape}),  # type: ignore[arg-type]
            vocab_size=own.vocab_size, end=own.end, pad=own.pad, seed=1, attention="eager",
        ).eval()  # fmt: skip
        with torch.no_grad():
            for parameter in made.parameters():  # norms and biases too: at their start, a mix-up would not show
                parameter.add_(torch.randn_like(parameter) * 0.05)
        made.save_pretrained(tmp_path / "model")
        for file in tokenizer.iterdir():
            if file.name.startswith("tokenizer"):
                (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
        return made

    return make


def read_back(file: Path, source: Any) -> Any:
    """The model that transformers reads from a GGUF file."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    if source.config.model_type == "gpt2":  # transformers reads the context of GPT-2 into a key that it does not use
        config.n_positions = source.config.n_positions
    if source.config.model_type == "qwen3":  # and does not read attention.key_length
        config.head_dim = source.config.head_dim
    return AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, config=config, local_files_only=True, attn_implementation="eager",
        dtype=torch.float32,
    ).eval()  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        ("llama", {"kv_heads": 2}),
        ("llama", {"tie_embeddings": False}),
        ("mistral", {"kv_heads": 1}),
        ("qwen2", {"kv_heads": 2}),
        ("qwen3", {"kv_heads": 2}),
        ("gpt2", {}),
    ],
)
def test_a_gguf_file_gives_the_logits_of_the_source(
    tmp_path: Path, model: Callable[..., Any], architecture: str, shape: dict[str, Any]
) -> None:
    source = model(architecture, **shape)
    code, out, err = run("gguf", "--model", tmp_path / "model", "--out", tmp_path / "m.gguf", "--json")
    assert code == 0, err
    assert ExportedFile.model_validate_json(out).tokens == source.config.vocab_size
    assert problems(json.loads(out), output_schema("export gguf")) == []
    again = read_back(tmp_path / "m.gguf", source)
    ids = torch.randint(0, source.config.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = source(ids).logits, again(ids).logits
    assert float(wanted.std()) > 0.01
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert not list(tmp_path.glob(".m.gguf*"))


def test_the_file_has_the_tokens_of_the_source(tmp_path: Path, model: Callable[..., Any], tokenizer: Path) -> None:
    from transformers import AutoTokenizer

    model("llama")
    (tmp_path / "model/chat_template.jinja").write_text("{{ messages[0].content }}")
    assert run("gguf", "--model", tmp_path / "model", "--out", tmp_path / "m.gguf")[0] == 0
    ours = load_tokenizer(tokenizer)
    again = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf", local_files_only=True)
    for text in [*TEXTS[:5], "a  b\t\n\nünï 漢字 'll 12345 \u0000", "<tag>"]:
        assert again.encode(text, add_special_tokens=False) == ours.encode(text).tolist()
    assert (again.eos_token_id, again.pad_token_id) == (ours.end, ours.pad)
    assert again.chat_template == "{{ messages[0].content }}"


def test_the_file_has_the_pieces_that_were_added_to_the_vocabulary(
    tmp_path: Path, model: Callable[..., Any], tokenizer: Path
) -> None:
    from transformers import AutoTokenizer

    words = ["the gardener waters the garden"] * 3
    grown = tmp_path / "grown"
    grown.mkdir()
    import_tokenizer(
        tokenizer, lambda: iter(words), Tokenizer(kind="local", path="models/base/t", add_pieces=12), grown
    )
    ours, source = load_tokenizer(grown), model("llama")
    add_rows(source, ours.vocab_size, ours.added_pieces, seed=1)
    source.save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).write_bytes((grown / name).read_bytes())
    code, _, err = run("gguf", "--model", tmp_path / "model", "--out", tmp_path / "m.gguf")
    assert code == 0, err
    again = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf", local_files_only=True)
    ids = ours.encode(words[0]).tolist()
    assert sum(number >= ours.vocab_size - 12 for number in ids) >= 3
    assert again.encode(words[0], add_special_tokens=False) == ids
    assert (again.eos_token_id, again.pad_token_id) == (ours.end, ours.pad)


def test_rows_without_a_token_and_added_tokens_have_their_kinds(tmp_path: Path, model: Callable[..., Any]) -> None:
    import gguf

    source, file = model("llama"), tmp_path / "model/tokenizer.json"
    count = source.config.vocab_size
    source.resize_token_embeddings(count + 5, mean_resizing=False)
    source.save_pretrained(tmp_path / "model")
    description = json.loads(file.read_text())
    word = {**description["added_tokens"][0], "id": count + 1, "content": "<word>", "special": False}
    description["added_tokens"].append(word)
    file.write_text(json.dumps(description))
    code, out, err = run("gguf", "--model", tmp_path / "model", "--out", tmp_path / "m.gguf", "--json")
    assert code == 0, err
    fields = gguf.GGUFReader(str(tmp_path / "m.gguf")).fields
    tokens, kinds = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type"))
    assert tokens[count:] == [f"[PAD{count}]", "<word>", *(f"[PAD{count + number}]" for number in (2, 3, 4))]
    assert kinds[count:] == [5, 4, 5, 5, 5]
    special = {entry["id"] for entry in description["added_tokens"] if entry["special"]}
    assert [number for number in range(count) if kinds[number] != 1] == sorted(special)
    assert {kinds[number] for number in special} == {3}
    assert len(tokens) == len(kinds) == fields["llama.vocab_size"].contents() == json.loads(out)["tokens"] == count + 5


@pytest.mark.parametrize(
    ("architecture", "name", "value"),
    [
        ("llama", "hidden_act", "gelu"),
        ("mistral", "hidden_act", "relu"),
        ("qwen2", "hidden_act", "gelu"),
        ("qwen3", "hidden_act", "gelu"),
        ("qwen3", "attention_bias", True),
        ("gpt2", "activation_function", "relu"),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
        ("gpt2", "scale_attn_weights", False),
    ],
)
def test_a_computation_that_gguf_cannot_say_is_refused(
    tmp_path: Path, model: Callable[..., Any], architecture: str, name: str, value: Any
) -> None:
    from transformers import AutoModelForCausalLM

    config = model(architecture).config
    setattr(config, name, value)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    code, _, err = run("gguf", "--model", tmp_path / "model", "--out", tmp_path / "m.gguf")
    assert code == 2 and f"config.json: {name} is {value}, which GGUF cannot say for {architecture}" in err
    assert err.count("\n") == 1 and not list(tmp_path.glob("*m.gguf*"))


WRITTEN = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "bos_token_id", "eos_token_id",
    "pad_token_id", "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "layer_norm_epsilon",
}  # fmt: skip
BY_TENSORS = {"tie_word_embeddings", "attention_bias", "mlp_bias"}  # GGUF has them if the model has
WINDOWS = {"sliding_window", "use_sliding_window", "max_window_layers", "layer_types"}  # refused if one is in use
WITHOUT_EFFECT = {
    "initializer_range", "use_cache", "pretraining_tp", "attention_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop",
    "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout",
    "reorder_and_upcast_attn",
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(FIXED))
def test_each_setting_of_a_config_is_written_checked_or_without_effect(kind: str) -> None:
    """A version of transformers with a further setting fails here."""
    from transformers import AutoConfig, PretrainedConfig

    own = set(AutoConfig.for_model(kind).to_dict()) - set(PretrainedConfig().to_dict())
    assert own - WRITTEN - BY_TENSORS - WINDOWS - WITHOUT_EFFECT == set(FIXED[kind]) - BY_TENSORS


def test_half_precision_rounds_matrices_and_keeps_vectors(tmp_path: Path, model: Callable[..., Any]) -> None:
    import gguf

    source = model("qwen2")
    assert run("gguf", "--model", tmp_path / "model", "--out", tmp_path / "m.gguf", "--f16")[0] == 0
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(str(tmp_path / "m.gguf")).tensors}
    own = dict(source.named_parameters())
    matrix, vector = own["model.layers.1.mlp.up_proj.weight"], own["model.layers.1.self_attn.q_proj.bias"]
    np.testing.assert_array_equal(found["blk.1.ffn_up.weight"], matrix.detach().numpy().astype(np.float16))
    np.testing.assert_array_equal(found["blk.1.attn_q.bias"], vector.detach().numpy())
    assert found["blk.1.attn_q.bias"].dtype == np.float32


def test_what_gguf_cannot_hold_is_refused_and_nothing_is_written(
    tmp_path: Path, model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gguf

    out = tmp_path / "m.gguf"
    to = ("gguf", "--model", tmp_path / "model", "--out", out)
    model("gpt_neox")
    code, _, err = run(*to)
    assert code == 2 and "the architecture gpt_neox has no export to GGUF" in err and err.count("\n") == 1
    model("llama")
    file = tmp_path / "model/tokenizer.json"
    description = json.loads(file.read_text())
    for key, value in (("normalizer", {"type": "NFC"}), ("pre_tokenizer", {"type": "Whitespace"}), ("model", {})):
        file.write_text(json.dumps({**description, key: value}))
        code, _, err = run(*to)
        assert code == 2 and "GGUF describes a tokenizer by the name of a known one" in err
    code, said, _ = run(*to, "--no-tokenizer")
    assert (code, "no tokenizer" in said) == (0, True)
    fields = gguf.GGUFReader(str(out)).fields
    assert fields["tokenizer.ggml.model"].contents() == "none"
    assert [name for name in fields if name.startswith("tokenizer")] == ["tokenizer.ggml.model"]
    assert (
        fields["llama.vocab_size"].contents() == json.loads((tmp_path / "model/config.json").read_text())["vocab_size"]
    )
    before = out.read_bytes()
    code, _, err = run(*to)
    assert code == 2 and "already exists" in err and out.read_bytes() == before
    out.unlink()
    file.write_text(json.dumps(description))
    config = json.loads((tmp_path / "model/config.json").read_text())
    scaled = {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}
    (tmp_path / "model/config.json").write_text(json.dumps({**config, **scaled}))
    code, _, err = run(*to)
    assert code == 2 and "no scaling of rotary" in err and err.count("\n") == 1
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    added = [
        *description["added_tokens"],
        {**description["added_tokens"][0], "id": config["vocab_size"], "content": "x"},
    ]
    file.write_text(json.dumps({**description, "added_tokens": added}))
    code, _, err = run(*to)
    assert code == 2 and "they do not belong together" in err and err.count("\n") == 1
    (tmp_path / "model/config.json").unlink()
    assert run(*to)[0] == 2
    monkeypatch.setattr("codex_ml.cli.gguf_export.find_spec", lambda name: None)
    code, _, err = run(*to)
    assert code == 2 and "needs the package gguf" in err
    assert not list(tmp_path.glob("*m.gguf*"))


def test_half_precision_refuses_a_weight_beyond_its_range(tmp_path: Path, model: Callable[..., Any]) -> None:
    source = model("llama")
    with torch.no_grad():
        source.model.layers[0].mlp.up_proj.weight[0, 0] = 1e6
    source.save_pretrained(tmp_path / "model")
    code, _, err = run("gguf", "--model", tmp_path / "model", "--out", tmp_path / "m.gguf", "--f16")
    assert code == 2 and "blk.0.ffn_up.weight holds 1e+06, which float16 cannot; export float32" in err
    assert not list(tmp_path.glob("*m.gguf*"))


def test_a_merged_folder_is_the_model_without_what_belongs_to_the_repository(
    tmp_path: Path, model: Callable[..., Any], tree: Callable[[Path], dict[str, str]]
) -> None:
    model("llama")
    source, out = tmp_path / "model", tmp_path / "merged"
    plain = {name: digest for name, digest in tree(source).items() if digest != "folder"}
    (source / "training.json").write_text("{}")
    (source / "adapter").mkdir()
    (source / "adapter/adapter_config.json").write_text("{}")
    save_file({"base_model.model.x.lora_A.weight": torch.ones(2, 2)}, source / "adapter/adapter_model.safetensors")
    code, said, err = run("merged", "--model", source, "--out", out, "--json")
    assert code == 0, err
    assert tree(out) == plain
    assert ExportedFolder.model_validate_json(said) == ExportedFolder(folder=str(out), files=sorted(plain))
    assert run("adapter", "--model", source, "--out", tmp_path / "adapter")[0] == 0
    assert sorted(tree(tmp_path / "adapter")) == [
        "adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["merged", "adapter", "tokenizer"])
def test_mistakes_are_one_line(tmp_path: Path, model: Callable[..., Any], kind: str) -> None:
    option = "--tokenizer" if kind == "tokenizer" else "--model"
    code, _, err = run(kind, option, tmp_path / "nothing", "--out", tmp_path / "new")
    assert code == 2 and "nothing" in err and err.count("\n") == 1
    model("llama")
    if kind == "adapter":
        code, _, err = run(kind, "--model", tmp_path / "model", "--out", tmp_path / "new")
        assert code == 2 and "has no folder adapter: all its weights were trained" in err
    code, _, err = run(kind, option, tmp_path / "model", "--out", tmp_path)
    assert code == 2 and err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_link_is_not_followed(tmp_path: Path, model: Callable[..., Any]) -> None:
    model("llama")
    (tmp_path / "secret").write_text("x")
    (tmp_path / "model/generation_config.json").unlink()
    (tmp_path / "model/generation_config.json").symlink_to(tmp_path / "secret")
    code, _, err = run("merged", "--model", tmp_path / "model", "--out", tmp_path / "new")
    assert code == 2 and "is a symbolic link" in err and not (tmp_path / "new").exists()


def test_the_folder_of_the_adapter_may_not_be_a_link(tmp_path: Path, model: Callable[..., Any]) -> None:
    model("llama")
    (tmp_path / "elsewhere").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "elsewhere" / name).write_text("{}")
    (tmp_path / "model/adapter").symlink_to(tmp_path / "elsewhere")
    code, _, err = run("adapter", "--model", tmp_path / "model", "--out", tmp_path / "new")
    assert code == 2 and "model/adapter is a symbolic link" in err and not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_weights_that_are_a_pickle_are_not_handed_on(tmp_path: Path, model: Callable[..., Any], kind: str) -> None:
    model("llama")
    (tmp_path / "model/adapter").mkdir()
    (tmp_path / "model/adapter/adapter_config.json").write_text("{}")
    for folder, name in (("model/adapter", "adapter_model"), ("model", "model")):
        (tmp_path / folder / f"{name}.safetensors").write_bytes(b"\x80\x04" + b"x" * 90)
    code, _, err = run(kind, "--model", tmp_path / "model", "--out", tmp_path / "new")
    assert code == 2 and "this is a pickle, not safetensors" in err and not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["gguf", "merged", "tokenizer"])
def test_a_target_that_cannot_be_made_is_refused_before_any_work(
    tmp_path: Path, model: Callable[..., Any], tree: Callable[[Path], dict[str, str]], kind: str
) -> None:
    model("llama")
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = tree(tmp_path)
    for target, said in (
        ("dangling", "already exists; give a new name"),
        ("file/inside", "file is not a folder, so"),
        ("model/copy", "which an export leaves as it is; give a name outside"),
    ):
        option = "--tokenizer" if kind == "tokenizer" else "--model"
        code, _, err = run(kind, option, tmp_path / "model", "--out", tmp_path / target)
        assert code == 2 and said in err and err.count("\n") == 1
    assert tree(tmp_path) == before


def test_an_exported_tokenizer_is_read_by_other_tools(tmp_path: Path, tokenizer: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import AutoTokenizer

    to = ("tokenizer", "-t", tokenizer, "--out", tmp_path / "new")
    assert run(*to)[0] == 0
    ours = load_tokenizer(tokenizer)
    other = ByteLevelBPETokenizer(str(tmp_path / "new/vocab.json"), str(tmp_path / "new/merges.txt"))
    auto = AutoTokenizer.from_pretrained(tmp_path / "new")
    for text in TEXTS:
        assert other.encode(text).ids == auto.encode(text) == ours.encode(text).tolist()
    code, _, err = run(*to)
    assert (code, "already exists" in err) == (2, True)
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    train_tokenizer(lambda: iter(TEXTS), Tokenizer(kind="sentencepiece_bpe", vocab_size=VOCAB), pieces)
    names = json.loads(run("tokenizer", "-t", pieces, "--out", tmp_path / "sp", "--json")[1])["files"]
    assert names == ["merges.txt", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json"]
