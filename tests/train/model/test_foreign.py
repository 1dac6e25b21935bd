"""A model folder from strangers: only what is allowed by name is read, and nothing in it runs."""

from __future__ import annotations

import json
import logging
import os
import pickle
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from codex_ml.core.errors import UserError
from codex_ml.core.packages import install_extra
from codex_ml.modeling.positions import longest_sequence
from codex_ml.train.model.foreign import MODEL_TYPES, check_folder, clean_config, read_config
from codex_ml.train.model.local_model import load_local, quantized
from codex_ml.train.model.weights import TensorEntry

from .architectures import SIZES, make


@pytest.fixture
def load(tmp_path):
    return lambda path, **options: load_local(
        path, **{"attention": "eager", "scratch": tmp_path / "scratch", **options}
    )


@pytest.fixture
def edit(folder):
    """Change config.json."""

    def edit(**changes):
        file = folder / "config.json"
        config = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))

    return edit


class Canary:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


KINDS = [
    "pytorch_model.bin", "model.pt", "model.pth", "weights.pkl", "weights.pickle", "last.ckpt", "tf_model.h5",
    "embeddings.npy", "embeddings.npz", "model.joblib", "flax_model.msgpack", "modeling_evil.py", "evil.so", "a.zip",
    "sub/folder/deep.BIN",
]  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_can_run_code_is_named_and_never_opened(folder, load, tmp_path, name):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    with pytest.raises(UserError) as error:
        load(folder)
    assert str(error.value) == (
        f"{file}: {file.suffix} files can run code when they are loaded, so a folder with one is refused; "
        "keep *.safetensors, config.json and the tokenizer's files"
    )
    assert not (tmp_path / "canary").exists()


def test_links_are_refused_wherever_they_lead(folder, load, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for target in (tmp_path / "elsewhere", folder / "config.json", tmp_path / "missing"):
        link = folder / "link"
        link.symlink_to(target)
        with pytest.raises(UserError) as error:
            load(folder)
        assert str(error.value) == f"{link} is a symbolic link; copy the file it points to, for example with cp -rL"
        link.unlink()
    (tmp_path / "linked").symlink_to(folder)
    with pytest.raises(UserError, match="linked is a symbolic link"):
        load(tmp_path / "linked")


def test_a_model_whose_files_dvc_keeps_in_its_cache_is_the_same_model(folder, load, tmp_path, monkeypatch):
    """With cache.type symlink, `dvc add` and `dvc checkout` create symbolic links with absolute paths."""
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / ".dvc/cache/files/md5/ab"
    cache.mkdir(parents=True)
    expected = load(folder).state_dict()
    for file in list(folder.iterdir()):
        file.rename(cache / file.name)
        file.symlink_to(cache / file.name)
    found = load(folder).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_of_a_model_that_dvc_ignores_is_refused(folder, load, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvcignore").write_text(f"{name}\n")
    with pytest.raises(UserError, match=rf"base/{name} is in no hash: DVC leaves it out \(\.dvcignore\)"):
        load(folder)


def test_a_pipe_is_refused_and_not_waited_for(folder):
    os.mkfifo(folder / "config.txt")
    with pytest.raises(UserError, match=r"config.txt is neither a file nor a folder"):
        check_folder(folder)


def test_readme_and_licence_of_a_folder_are_no_reason_to_refuse_it(folder, load):
    for name in ("README.md", "LICENSE", ".gitattributes", "generation_config.json", "tokenizer.json", "merges.txt"):
        (folder / name).write_text("not even JSON")
    load(folder)


@pytest.mark.filterwarnings("ignore")
def test_evil_settings_reach_nothing(folder, load, edit, tmp_path):
    """Each configuration names code in a different way; a module of that name is in the folder's parent, which is on the path."""
    evil = {
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil--evil.Model"},
        "_attn_implementation": "evil/kernels:attention",
        "_attn_implementation_internal": "evil/kernels",
        "attn_implementation": "evil/kernels",
        "_experts_implementation": "evil/kernels",
        "trust_remote_code": True,
        "_name_or_path": "evil",
        "transformers_weights": "../../evil.safetensors",
        "fusion_config": {"patch_embeddings": True},
        "rope_scaling": {"rope_type": "https://example.com/evil"},
        "text_config": {"trust_remote_code": True, "auto_map": {"AutoModel": "evil.Model"}},
        "architectures": ["evil.Model"],
        "custom_pipelines": {"x": {"impl": "evil.Pipe"}},
    }
    (tmp_path / "evil.py").write_text("import os; os.mkdir('canary')")
    edit(**evil)
    opened = []
    watching = True
    sys.addaudithook(lambda event, _: opened.append(event) if watching and event.startswith("socket.") else None)
    sys.path.insert(0, str(tmp_path))
    try:
        model = load(folder)
    finally:
        sys.path.remove(str(tmp_path))
        watching = False
    assert opened == []
    assert "evil" not in sys.modules
    text = json.dumps(model.config.to_dict(), default=str) + repr(model.config.__dict__)
    assert "evil" not in text
    assert "auto_map" not in text
    assert model.config._attn_implementation == "eager"
    assert type(model).__name__ == "LlamaForCausalLM"


def test_what_is_left_out_is_said(folder, edit, caplog):
    edit(_name_or_path="evil", auto_map={"AutoModel": "evil.Model"}, custom="x")
    with caplog.at_level(logging.INFO, "codex_ml"):
        read_config(folder, [TensorEntry("F32", (2, 500), 0, 4000)] * 20)
    left_out = f"model: left out of {folder / 'config.json'}: _name_or_path, auto_map, custom"
    assert [record.getMessage() for record in caplog.records] == [left_out]


def test_nested_keys_and_addresses_are_left_out():
    raw = {
        "a": {"b": [{"auto_map": "x"}]},
        "b": "https://example.com/x",
        "c": ["fine", "../up"],
        "d": {"deep": [1, 2.5, None, True, "silu"]},
        "e": "silu",
        "kernel_config": 1,
        "unknown": 1,
    }
    known = {"a", "b", "c", "d", "e", "kernel_config"}
    assert clean_config(raw, known=known, name="x") == {"d": raw["d"], "e": "silu"}


CONFIGS = {
    "unknown": ({"model_type": "evil"}, "model_type 'evil' is not one of " + ", ".join(MODEL_TYPES)),
    "no type": ({"model_type": ...}, "model_type '' is not one of " + ", ".join(MODEL_TYPES)),
    "type list": ({"model_type": ["llama"]}, "model_type \"['llama']\" is not one of " + ", ".join(MODEL_TYPES)),
    "bloom": ({"model_type": "bloom"}, "bloom leaks between the documents of a row: its attention uses distances along the whole row and takes no document mask; use another model"),
    "opt": ({"model_type": "opt"}, "opt leaks between the documents of a row: it counts positions along the whole row, from the padding mask; use another model"),
    "quantized": ({"quantization_config": {"quant_method": "gptq"}}, "the weights are quantized (quantization_config); use the model in bf16 or fp32"),
    "huge": ({"hidden_size": 2**40}, "1099511627776 is too large for a model's configuration; at most 2147483648 is allowed"),
    "layers": ({"num_hidden_layers": 1_000_000}, "num_hidden_layers is 1,000,000, but the weights do not fit: its number of tensors is 20"),
    "text": ({"hidden_size": "many"}, "llama does not accept these settings: "),
    "heads": ({"num_attention_heads": 0}, "llama does not accept these settings: "),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_that_cannot_be_are_refused(folder, load, edit, name):
    changes, reason = CONFIGS[name]
    edit(**changes)
    with pytest.raises(UserError) as error:
        load(folder)
    assert str(error.value).startswith(f"{folder / 'config.json'}: {reason}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[]", '"llama"', "null", "3"])
def test_settings_that_are_no_mapping_are_refused(folder, load, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match="model_type '' is not one of"):
        load(folder)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_good_folder_gives_the_model_it_holds(tiny, load, tmp_path, name, tied):
    model = tiny(name, tie_embeddings=tied)
    model.save_pretrained(tmp_path / "model")
    again = load(tmp_path / "model")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == tied
    assert not again.training


def test_half_precision_is_read_as_float32(folder, load):
    half = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(half, folder / "model.safetensors")
    model = load(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model.model.norm.weight, half["model.norm.weight"].float())


def test_shards_are_read_by_their_index(tiny, load, tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 2
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "model")(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("../secret.safetensors", "'../secret.safetensors' is not the name of a shard, such as model-00001-of-00002.safetensors"),
        ("/etc/passwd", "'/etc/passwd' is not the name of a shard, such as model-00001-of-00002.safetensors"),
        (7, "'7' is not the name of a shard, such as model-00001-of-00002.safetensors"),
    ],
)  # fmt: skip
def test_an_index_may_name_shards_beside_it_only(tiny, load, tmp_path, place, reason):
    folder = tmp_path / "model"
    tiny().save_pretrained(folder, max_shard_size="20KB")
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["model.norm.weight"] = place
    file.write_text(json.dumps(index))
    with pytest.raises(UserError) as error:
        load(folder)
    assert str(error.value) == f"{file}: {reason}"


def test_an_index_that_disagrees_with_its_shards_is_refused(tiny, load, tmp_path):
    folder = tmp_path / "model"
    tiny().save_pretrained(folder, max_shard_size="20KB")
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    first = sorted(folder.glob("*.safetensors"))[0]
    for change, reason in (
        (lambda: index["weight_map"].pop("model.norm.weight"), f"{file} and its shards disagree about model.norm.weight"),
        (first.unlink, f"{first} is missing; model.safetensors.index.json names it"),
    ):  # fmt: skip
        change()
        file.write_text(json.dumps(index))
        with pytest.raises(UserError) as error:
            load(folder)
        assert str(error.value) == reason


TENSORS = {
    "missing": lambda t: t.pop("model.norm.weight"),
    "unexpected": lambda t: t.update({"evil.weight": torch.ones(2)}),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_weights_that_do_not_fit_are_refused(folder, load, kind):
    tensors = load_file(folder / "model.safetensors")
    TENSORS[kind](tensors)
    save_file(tensors, folder / "model.safetensors")
    name = {"missing": "model.norm.weight", "unexpected": "evil.weight"}[kind]
    with pytest.raises(UserError) as error:
        load(folder)
    assert str(error.value) == f"{folder}: 1 {kind} tensors, such as {name}; the weights do not fit"


def test_weights_of_another_shape_are_refused(folder, load):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(7)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"is not a model that can be loaded: .*mismatched"):
        load(folder)


def test_folder_without_weights_or_with_an_adapter_says_what_it_is(folder, load, tmp_path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has neither model.safetensors nor model.safetensors.index.json"):
        load(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds an adapter .* names the model that it was trained on"):
        load(folder)
    with pytest.raises(UserError, match=r"missing is missing; model.path names a"):
        load(tmp_path / "missing")


@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_quantization_that_is_not_installed_names_its_extra(folder, load, monkeypatch, kind):
    monkeypatch.setattr("codex_ml.train.model.local_model.find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        load(folder, quantization=kind)
    advice = install_extra("quantization")
    assert str(error.value) == f"model.quantization: {kind} needs the package bitsandbytes; {advice}"


def test_eight_bits_round_each_row_by_itself(monkeypatch):
    """The default of bitsandbytes looks for large activations in the whole batch; the probe measured 0.28 of the largest logit."""
    monkeypatch.setattr("codex_ml.train.model.local_model.find_spec", lambda name: object())
    eight, four = (quantized(kind)["quantization_config"] for kind in ("8bit", "4bit"))
    assert (eight.load_in_8bit, eight.llm_int8_threshold) == (True, 0.0)
    assert (four.load_in_4bit, four.bnb_4bit_quant_type, four.bnb_4bit_compute_dtype) == (True, "nf4", torch.bfloat16)
    assert quantized("none") == {}


def test_dropout_is_that_of_params_and_not_of_the_folder(tiny, load, tmp_path):
    tiny("gpt2", dropout=0.5).save_pretrained(tmp_path / "model")
    ids = torch.arange(20)[None]
    model = load(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(model.train()(ids).logits, model.eval()(ids).logits)
        dropping = load(tmp_path / "model", dropout=0.5)
        assert not torch.equal(dropping.train()(ids).logits, model(ids).logits)


def test_longest_sequence_is_the_window_where_one_is_narrower(tiny):
    from transformers import MistralConfig, Qwen2Config

    assert longest_sequence(tiny().config) == (64, "max_position_embeddings")
    assert longest_sequence(MistralConfig(sliding_window=16)) == (16, "sliding_window")
    assert longest_sequence(MistralConfig(sliding_window=None)) == (4096 * 32, "max_position_embeddings")
    assert longest_sequence(Qwen2Config(sliding_window=16)) == (32768, "max_position_embeddings")
    assert longest_sequence(Qwen2Config(sliding_window=16, use_sliding_window=True)) == (16, "sliding_window")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hidden_size": 2**20}, "hidden_size is 1,048,576, but the weights do not fit: the longest side of its tensors is 64"),
        ({"intermediate_size": 2**31}, "intermediate_size is 2,147,483,648, but the weights do not fit"),
        ({"head_dim": 65}, "head_dim is 65, but the weights do not fit"),
        ({"vocab_size": 64, "num_hidden_layers": 20}, "describes a model of 177,440 parameters, but the weights hold 19,616 numbers"),
    ],
)  # fmt: skip
def test_a_configuration_of_a_larger_model_than_the_weights_is_refused(folder, edit, load, change, told):
    edit(**change)
    with pytest.raises(UserError) as error:
        load(folder)
    assert str(error.value).startswith(f"{folder / 'config.json'}") and told in str(error.value)


def test_a_mask_that_grows_with_the_square_of_the_positions_is_refused_before_it_is_made(load, tmp_path):
    """Beside 325 kB of weights it took 5 GB. The weights are written here without building the model."""
    import transformers

    sizes = {"n_embd": 2, "n_head": 1, "n_layer": 1, "n_inner": 2, "n_positions": 40_000, "vocab_size": 8}
    config = transformers.AutoConfig.for_model("gpt_bigcode", **sizes)
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(config)
    (tmp_path / "base").mkdir()
    save_file({n: torch.zeros(p.shape) for n, p in built.named_parameters()}, tmp_path / "base/model.safetensors")
    (tmp_path / "base/config.json").write_text(json.dumps({"model_type": "gpt_bigcode", **sizes}))
    told = (
        r"base/config\.json: gpt_bigcode makes masks and tables of 1,525 MiB for 40,000 positions; 256 MiB are allowed"
    )
    with pytest.raises(UserError, match=told):
        load(tmp_path / "base")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 900 + "]" * 900, "is not valid JSON: nested too deeply, more than 200 levels"),
        ('{"model_type": "llama", "a": ' + "[" * 900 + "]" * 900 + "}", "nested too deeply"),
        ("[" + "[]," * 400_000 + "[]]", "has 1,200,004 bytes; at most 1,048,576 are read"),
    ],
)
def test_a_deep_or_large_configuration_is_one_line(folder, load, text, told):
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=told):
        load(folder)


@pytest.mark.parametrize("change", [{"num_attention_heads": -2}, {"vocab_size": -33}, {"hidden_size": 0}])
def test_settings_that_no_model_can_have_are_one_line(folder, edit, load, change):
    edit(**change)
    with pytest.raises(UserError) as error:
        load(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_weights_of_whole_numbers_are_refused_by_name(folder, load, dtype):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(dtype)
    save_file(tensors, folder / "model.safetensors")
    name = {torch.int64: "I64", torch.bool: "BOOL"}[dtype]
    with pytest.raises(
        UserError, match=rf"model\.safetensors: model\.norm\.weight is of dtype {name}; weights must be floating-point"
    ):
        load(folder)


def test_a_stored_attention_mask_is_read_over_and_changes_nothing(load, tmp_path):
    """Older files of GPT-2 hold it as BOOL or U8. Here it allows nothing, and the logits stay."""
    model = make("gpt2", **SIZES["gpt2"])
    model.save_pretrained(tmp_path / "base")
    tensors = load_file(tmp_path / "base/model.safetensors")
    tensors |= {f"transformer.h.{n}.attn.bias": torch.zeros(1, 1, 64, 64, dtype=torch.bool) for n in range(2)}
    save_file(tensors, tmp_path / "base/model.safetensors")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "base")(ids).logits, model(ids).logits)
