"""params.yaml gives a model that the loop can train, or an error of one line before the first step."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoTokenizer

from codex_ml.core.errors import UserError
from codex_ml.modeling.pack_files import Packed
from codex_ml.modeling.positions import check_length, reach
from codex_ml.modeling.trained_model import load_model
from codex_ml.train.config import Lora, Model, Train
from codex_ml.train.loss import summed_loss
from codex_ml.train.model.adapters import trainable_parameters
from codex_ml.train.model.foreign import MODEL_TYPES
from codex_ml.train.model.prepare import attention_for, make_trainable, prepare_model, save_tokenizer, save_trained
from codex_ml.train.model.vocabulary import embedding_rows

ABOUT = {
    "dtype": "<u2", "seq_len": 32, "layout": "packed", "tokenizer_kind": "byte_bpe", "vocab_size": 64,
    "begin": 0, "end": 0, "pad": 1, "loss_on": "completions", "streams": {},
}  # fmt: skip
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 2, "max_positions": 64}


@pytest.fixture
def base(tiny, tmp_path, monkeypatch):
    """A model below models/base: `base("gpt2")` is its path."""
    monkeypatch.chdir(tmp_path)

    def base(name="llama", **shape):
        tiny(name, **shape).save_pretrained(tmp_path / "models/base/mine")
        return "models/base/mine"

    return base


@pytest.fixture
def prepare(tmp_path):
    def prepare(model, *, train=None, about=None, device="cpu", new_tokenizer=False, seed=1):
        train = train or Train()
        prepared = prepare_model(
            model,
            Packed(**{**ABOUT, **(about or {})}),
            attention=attention_for(train, device),
            seed=seed,
            new_tokenizer=new_tokenizer,
            scratch=tmp_path / "scratch",
        )
        return make_trainable(prepared, model, train, seed=seed)

    return prepare


def batch():
    positions = torch.tensor([[*range(7), *range(9)], [0, *range(15)]])
    ids = torch.randint(2, 64, positions.shape, generator=torch.Generator().manual_seed(5))
    return {"input_ids": ids, "labels": ids.roll(-1, 1), "position_ids": positions}


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox"])
def test_a_shape_and_the_same_model_on_disk_start_with_equal_loss(prepare, base, name):
    path = base(name)
    scratch = prepare(Model(architecture=name, **SHAPE))
    local = prepare(Model(path=path))
    with torch.no_grad():
        assert torch.equal(summed_loss(scratch.eval(), batch()), summed_loss(local.eval(), batch()))


def test_a_saved_encoder_decoder_is_read_by_evaluation_with_equal_loss(prepare, tmp_path):
    settings = Model(architecture="t5", **SHAPE)
    model = prepare(settings)
    one_document = {**batch(), "position_ids": torch.arange(16).repeat(2, 1)}
    with torch.no_grad():
        wanted = summed_loss(model.eval(), one_document)
        (tmp_path / "out").mkdir()
        save_trained(model, tmp_path / "out", settings, scratch=tmp_path / "scratch")
        assert torch.equal(summed_loss(load_model(tmp_path / "out", device="cpu"), one_document), wanted)


def test_an_encoder_decoder_on_disk_is_refused(prepare, base):
    with pytest.raises(UserError, match=r"model_type 't5' is not one of llama, "):
        prepare(Model(path=base("t5")))


def test_tokenizer_and_model_that_disagree_are_refused_naming_both(prepare, base):
    with pytest.raises(UserError, match="the tokenizer has 103 tokens, but the model's embedding has 64 rows"):
        prepare(Model(path=base()), about={"vocab_size": 103})


def test_a_new_tokenizer_resizes_the_vocabulary_but_not_under_adapters(prepare, base):
    path = base()
    assert embedding_rows(prepare(Model(path=path), about={"vocab_size": 103}, new_tokenizer=True)) == 103
    with pytest.raises(
        UserError, match=r"^model.lora: adapters leave the embedding as it is, but the tokenizer is new"
    ):
        prepare(Model(path=path, lora=Lora(rank=4, targets=("q_proj",))), new_tokenizer=True)


def test_rows_longer_than_the_model_sees_are_refused(prepare, base):
    with pytest.raises(UserError) as error:
        prepare(Model(path=base()), about={"seq_len": 65})
    assert str(error.value) == "pack.seq_len 65 is longer than the model's max_position_embeddings 64; lower it"


def test_rows_longer_than_a_sliding_window_are_refused(prepare, base, tmp_path):
    path = base("mistral")
    file = tmp_path / path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sliding_window": 24}))
    with pytest.raises(UserError) as error:
        prepare(Model(path=path))
    assert str(error.value) == "pack.seq_len 32 is longer than the model's sliding_window 24; lower it"


def test_length_of_other_keys_is_told_by_their_name(tiny):
    check_length(tiny().config, 64, "safety_audit.sample_tokens")
    with pytest.raises(UserError, match=r"^safety_audit.sample_tokens 65 is longer"):
        check_length(tiny().config, 65, "safety_audit.sample_tokens")


@pytest.mark.parametrize("theirs", [{}, {"bos_token_id": 9, "eos_token_id": [7, 8], "pad_token_id": 9}])
@pytest.mark.parametrize(("begin", "end", "pad"), [(2, 2, 3), (4, 2, 3), (4, 2, 2)])
def test_special_tokens_are_those_of_the_run_and_sampling_settings_of_the_folder_are_gone(
    prepare, base, tmp_path, caplog, theirs, begin, end, pad
):
    path = base()
    config = json.loads((tmp_path / path / "config.json").read_bytes())
    (tmp_path / path / "config.json").write_text(json.dumps({**config, **theirs}))
    (tmp_path / path / "generation_config.json").write_text('{"repetition_penalty": 9.0, "eos_token_id": [7, 8]}')
    with caplog.at_level("INFO", logger="codex_ml"):
        model = prepare(Model(path=path), about={"begin": begin, "end": end, "pad": pad})
    save_trained(model, tmp_path, Model(path=path), scratch=tmp_path)
    for name in ("config.json", "generation_config.json"):
        saved = json.loads((tmp_path / name).read_bytes())
        assert (saved["bos_token_id"], saved["eos_token_id"], saved["pad_token_id"]) == (begin, end, pad), name
    assert model.generation_config.repetition_penalty is None
    differ = f"model: its config.json has eos_token_id [7, 8]; {end}, the tokenizer's, is used"
    assert (differ in caplog.messages) == bool(theirs)


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
def test_a_model_from_scratch_begins_with_the_bos_of_its_tokenizer(prepare, tmp_path, name):
    model = prepare(Model(architecture=name, **SHAPE), about={"begin": 5, "end": 2, "pad": 3})
    save_trained(model, tmp_path, Model(architecture=name, **SHAPE), scratch=tmp_path)
    for file in ("config.json", "generation_config.json"):
        saved = json.loads((tmp_path / file).read_bytes())
        assert (saved["bos_token_id"], saved["eos_token_id"], saved["pad_token_id"]) == (5, 2, 3), file
        assert saved.get("decoder_start_token_id") == (3 if name == "t5" else None), file


@pytest.mark.parametrize("path", [True, False])
def test_generation_ends_at_the_end_of_a_turn_and_of_a_document(prepare, base, path):
    settings = (
        Model(path=base()) if path else Model(hidden_size=16, intermediate_size=32, layers=1, heads=2, max_positions=64)
    )
    for turns, expected in (([], 2), ([2], 2), ([5, 7], [2, 5, 7])):
        model = prepare(settings, about={"end": 2, "pad": 3, **({"turn_ends": turns} if turns else {})})
        assert model.config.eos_token_id == model.generation_config.eos_token_id == expected


@pytest.mark.parametrize("quantization", ["none", "4bit"])
def test_an_adapter_names_its_base_as_params_do(prepare, base, tmp_path, quantization):
    settings = Model(path=base(), lora=Lora(rank=2, targets=("q_proj",)))
    model = prepare(settings, about={"end": 2, "pad": 3, "turn_ends": [5]})
    (tmp_path / "out").mkdir()
    save_trained(model, tmp_path / "out", settings.model_copy(update={"quantization": quantization}), scratch=tmp_path)
    named = json.loads((tmp_path / "out/adapter/adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == settings.path != ""
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "out" / name).read_text())["eos_token_id"] == [2, 5]


@pytest.mark.parametrize(
    ("attention", "device", "expected"),
    [("auto", "cpu", "eager"), ("auto", "cuda", "sdpa"), ("sdpa", "cpu", "sdpa"), ("eager", "cuda", "eager")],
)
def test_attention_by_device(prepare, base, attention, device, expected):
    assert attention_for(Train(attention=attention), device) == expected
    path = base()
    for model in (Model(**SHAPE), Model(path=path)):
        assert prepare(model, train=Train(attention=attention), device=device).config._attn_implementation == expected


@pytest.mark.parametrize("lora", [Lora(), Lora(rank=4, targets=("all-linear",))])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_activation_checkpointing_gives_equal_gradients(prepare, base, name, lora):
    path = base(name)
    gradients = []
    for checkpointing in (False, True):
        model = prepare(Model(path=path, lora=lora), train=Train(activation_checkpointing=checkpointing)).train()
        assert model.is_gradient_checkpointing == checkpointing
        summed_loss(model, batch()).backward()
        gradients.append({key: p.grad for key, p in trainable_parameters(model).items()})
    assert gradients[0].keys() == gradients[1].keys()
    for key, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][key]), key


@pytest.mark.parametrize("lora", [Lora(), Lora(rank=4, targets=("all-linear",))])
def test_saved_model_is_read_by_evaluation_with_equal_loss(prepare, base, tmp_path, lora):
    """With adapters the folder has the merged model, and the adapter in a folder of its own."""
    settings = Model(path=base(), lora=lora)
    model = prepare(settings)
    for parameter in trainable_parameters(model).values():
        parameter.data += 0.01
    with torch.no_grad():
        wanted = summed_loss(model.eval(), batch())
        folder = tmp_path / "out"
        folder.mkdir()
        save_trained(model, folder, settings, scratch=tmp_path / "scratch")
        found = summed_loss(load_model(folder, device="cpu"), batch())
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)
    plain = {"config.json", "generation_config.json", "model.safetensors"}
    assert {file.name for file in folder.iterdir()} == plain | ({"adapter"} if lora.rank else set())


def test_adapters_on_a_base_in_few_bits_merge_into_the_full_weights(prepare, base, tmp_path):
    """The rounding of few bits is not in the result; here the base is not quantized, so the logits must be equal."""
    settings = Model(path=base(), lora=Lora(rank=4, targets=("q_proj",)))
    model = prepare(settings)
    for parameter in trainable_parameters(model).values():
        parameter.data += 0.01
    with torch.no_grad():
        wanted = summed_loss(model.eval(), batch())
        (tmp_path / "out").mkdir()
        few_bits = settings.model_copy(update={"quantization": "4bit"})
        save_trained(model, tmp_path / "out", few_bits, scratch=tmp_path / "scratch")
        found = summed_loss(load_model(tmp_path / "out", device="cpu"), batch())
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)


def test_random_numbers_that_were_drawn_before_change_nothing(prepare, base):
    settings = Model(path=base(), lora=Lora(rank=4, targets=("q_proj",)))
    torch.rand(5)
    first = trainable_parameters(prepare(settings))
    torch.rand(7)
    second = trainable_parameters(prepare(settings))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


SCALED = {
    "linear": ({"rope_type": "linear", "factor": 2.0}, 128),
    "dynamic": ({"rope_type": "dynamic", "factor": 4.0}, 256),
    "yarn, positions before": ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, 256),
    "yarn, positions after": ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}, 64),
    "llama3": (
        {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 16, "low_freq_factor": 1.0,
         "high_freq_factor": 4.0},
        64,
    ),
    "longrope": (
        {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 16, "short_factor": [1.0] * 8,
         "long_factor": [2.0] * 8},
        64,
    ),
    "none": (None, 64),
}  # fmt: skip


@pytest.mark.parametrize(("rope", "length"), SCALED.values(), ids=SCALED)
def test_scaled_rotary_positions_reach_as_far_as_their_type_says(rope, length):
    config = AutoConfig.for_model("llama", max_position_embeddings=64, head_dim=16, rope_scaling=rope)
    assert reach(config) == length


def tokenizer_at(folder):
    from tokenizers import Tokenizer, models

    folder.mkdir()
    special = [{"id": 0, "content": "<e>", "special": True}, {"id": 1, "content": "<p>", "special": True}]
    tokenizer = Tokenizer(models.WordLevel({"<e>": 0, "<p>": 1, "a": 2}, unk_token="<p>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([entry["content"] for entry in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<e>", "pad_token": "<p>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("name", [*MODEL_TYPES, "t5"])
def test_the_saved_tokenizer_cuts_texts_to_what_the_model_can_see(tmp_path, name):
    """huggingface/transformers 16186: without model_max_length, truncation=True leaves 900 tokens for 64 positions."""
    sizes = {"d_model": 16} if name == "t5" else {"max_position_embeddings": 48}
    config = AutoConfig.for_model(name, vocab_size=64, bos_token_id=0, eos_token_id=0, pad_token_id=1, **sizes)
    (tmp_path / "saved/adapter").mkdir(parents=True)
    save_tokenizer(tokenizer_at(tmp_path / "made"), tmp_path / "saved", config, seq_len=32)
    for file in tmp_path.glob("saved/*.json"):  # AutoPeftModel looks for them beside the adapter
        assert (tmp_path / "saved/adapter" / file.name).read_bytes() == file.read_bytes()
    made, saved = (tmp_path / folder for folder in ("made", "saved"))
    assert (saved / "tokenizer.json").read_bytes() == (made / "tokenizer.json").read_bytes()
    before, after = (json.loads((f / "tokenizer_config.json").read_bytes()) for f in (made, saved))
    assert {key: after[key] for key in before} == before
    plain = AutoTokenizer.from_pretrained(saved, local_files_only=True)
    length = 32 if name == "t5" else 48
    assert plain.model_max_length == length
    assert len(plain("a " * 900, truncation=True)["input_ids"]) == length
    short, _ = plain(["a", "a a a"], padding=True)["input_ids"]
    assert short == ([2, 1, 1] if name == "t5" else [1, 1, 2])
