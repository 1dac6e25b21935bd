"""Prepare the model of params.yaml for the loop (build or load, fit the vocabulary, probe, add adapters); save it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import UserError
from codex_ml.core.io import read_json, write_json
from codex_ml.modeling.pack_files import Packed
from codex_ml.modeling.positions import check_length, reach
from codex_ml.train.config import Model, Train
from codex_ml.train.model.adapters import ADAPTER, add_adapters, is_adapted, merge_and_verify, save_adapter, save_model
from codex_ml.train.model.build import build_model, parameter_count
from codex_ml.train.model.local_model import load_local
from codex_ml.train.model.probe import check_isolation
from codex_ml.train.model.vocabulary import add_rows, fit_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("codex_ml")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.model")
TEMPLATES = "additional_chat_templates"


def prepare_model(
    model: Model, packed: Packed, *, attention: str, seed: int, new_tokenizer: bool, scratch: Path
) -> PreTrainedModel:
    """Build or load the model of params.yaml, in float32 on the CPU. Equal arguments and files give equal weights.

    Args:
        packed: pack.json of the rows that the model trains on.
        attention: "eager" or "sdpa", from `attention_for`.
        new_tokenizer: whether the tokenizer was trained here, so that its ids differ from those of a model on disk.
        scratch: folder in which a GGUF file is unpacked.

    Raises:
        UserError: when the model cannot be loaded, cannot see pack.seq_len tokens, has too few embedding rows, or leaks
            between documents.
    """
    ready = (
        _loaded(model, packed, attention=attention, seed=seed, new_tokenizer=new_tokenizer, scratch=scratch)
        if model.path
        else _built(model, packed, attention=attention, seed=seed)
    )
    _end_generation(ready, [packed.end, *packed.turn_ends])
    check_length(ready.config, packed.seq_len, "pack.seq_len")
    difference = check_isolation(ready)
    log.info("model: %.2f M parameters, %s attention", parameter_count(ready) / 1e6, attention)
    log.info("model: packing changes the logits of a document by at most %.0e of the largest logit", difference)
    return ready


def trainable_model(model: Model, train: Train, folder: Path, *, device: str, seed: int, scratch: Path) -> Any:
    """Return the model that the loop trains: `prepare_model`, then `make_trainable`.

    Args:
        folder: folder of the packed rows that the model trains on.
        device: "cpu" or "cuda".
    """
    packed = Packed.read(folder / "pack.json")
    prepared = prepare_model(
        model,
        packed,
        attention=attention_for(train, device),
        seed=seed,
        new_tokenizer=packed.tokenizer_kind != "local",
        scratch=scratch,
    )
    added = range(packed.vocab_size - len(packed.added_pieces), packed.vocab_size)
    return make_trainable(prepared, model, train, seed=seed, added=added)


def make_trainable(
    prepared: PreTrainedModel, model: Model, train: Train, *, seed: int, added: Sequence[int] = ()
) -> Any:
    """Switch on activation checkpointing and add adapters to a prepared model, as params.yaml says.

    Args:
        added: ids of the pieces that tokenizer.add_pieces added; with adapters their rows train too.

    Returns:
        the model; with adapters a `PeftModel`, of which only the adapters' parameters are trained.

    Raises:
        UserError: see `add_adapters`.
    """
    if train.activation_checkpointing:  # before the adapters: peft then lets gradients enter the frozen model
        prepared.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return add_adapters(prepared, model.lora, seed=seed, added=added) if model.lora.rank else prepared


def _built(model: Model, packed: Packed, *, attention: str, seed: int) -> PreTrainedModel:
    ready = build_model(
        model,
        vocab_size=packed.vocab_size,
        end=packed.end,
        pad=packed.pad,
        seed=seed,
        attention=attention,
    )
    for config in (ready.config, ready.generation_config):
        assert config is not None
        config.bos_token_id = packed.begin
    return ready


def _loaded(
    model: Model, packed: Packed, *, attention: str, seed: int, new_tokenizer: bool, scratch: Path
) -> PreTrainedModel:
    if model.lora.rank and new_tokenizer:
        raise UserError(
            "model.lora: adapters leave the embedding as it is, but the tokenizer is new; use the model's own "
            "(tokenizer.kind: local), or train all weights (model.lora.rank: 0)"
        )
    if packed.added_pieces and model.quantization != "none":
        raise UserError(
            f"model.quantization {model.quantization} cannot be combined with tokenizer.add_pieces: the adapter is "
            "merged into the original weights, which have no rows for the new pieces; use none, or add no pieces"
        )
    ready = load_local(
        Path(model.path),
        attention=attention,
        scratch=scratch,
        dropout=model.dropout,
        quantization=model.quantization,
    )
    fit_vocabulary(ready, packed.vocab_size - len(packed.added_pieces), resize=new_tokenizer, seed=seed)
    add_rows(ready, packed.vocab_size, packed.added_pieces, seed=seed)
    _take_tokens(ready, begin=packed.begin, end=packed.end, pad=packed.pad)
    ready.name_or_path = model.path  # peft writes it to adapter_config.json, where AutoPeftModel looks for the base
    return ready


def attention_for(train: Train, device: str) -> str:
    """Return "eager" or "sdpa": `train.attention`, with auto resolved for a device."""
    if train.attention != "auto":
        return train.attention
    return "sdpa" if device == "cuda" else "eager"


def save_trained(trained: Any, folder: Path, model: Model, *, scratch: Path) -> None:
    """Write a trained model to an existing folder, in the Hugging Face layout; with adapters, also to adapter/ in it.

    Args:
        trained: what `make_trainable` returned for `model`, trained.

    Raises:
        CheckFailed: when the merged model does not compute what the adapted one did.
    """
    if not is_adapted(trained):
        save_model(trained, folder)
        return
    save_adapter(trained, folder / ADAPTER)
    if model.quantization != "none":  # 8 or 4 bits cannot hold the sum: merge into the original weights
        from peft import PeftModel

        base = load_local(Path(model.path), attention="eager", scratch=scratch)
        config = trained.config
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        _take_tokens(base, begin=config.bos_token_id, end=ends[0], pad=config.pad_token_id)
        _end_generation(base, ends)
        trained = PeftModel.from_pretrained(base, folder / ADAPTER)
    merge_and_verify(trained, folder)


def save_tokenizer(tokenizer: Path, folder: Path, config: Any, *, seq_len: int) -> None:
    """Copy a tokenizer into the folder of its model, byte for byte, and set two keys of tokenizer_config.json.

    The folder of an adapter gets it too: `AutoPeftModel` enlarges the embedding of the base model by the tokenizer that
    it finds there, and asks a hub for one where it finds none.

    The keys are model_max_length, without which `truncation=True` of transformers truncates nothing, and padding_side:
    "left" for a decoder, because it continues from the last position; "right" for an encoder-decoder.

    Args:
        config: the model's configuration.
        seq_len: tokens per row; the longest text that a model with relative positions has seen.
    """
    name = "tokenizer_config.json"
    decided = {
        "model_max_length": reach(config) or seq_len,
        "padding_side": "right" if config.is_encoder_decoder else "left",
    }
    for target in (folder, *([folder / ADAPTER] if (folder / ADAPTER).is_dir() else [])):
        for part in TOKENIZER:
            if (file := tokenizer / part).is_file():
                shutil.copyfile(file, target / part)
        if (tokenizer / TEMPLATES).is_dir():
            shutil.copytree(tokenizer / TEMPLATES, target / TEMPLATES, copy_function=shutil.copyfile)
        write_json(target / name, {**read_json(tokenizer / name), **decided})


def _end_generation(model: PreTrainedModel, ends: Sequence[int]) -> None:
    """Let generation end at each of these tokens: the end of a document and, for chats, of a turn."""
    found: Any = list(dict.fromkeys(ends))
    found = found[0] if len(found) == 1 else found
    for config in (model.config, model.generation_config):
        assert config is not None
        config.eos_token_id = found


def _take_tokens(loaded: PreTrainedModel, *, begin: int, end: int, pad: int) -> None:
    """Set the special tokens of this run's tokenizer, and remove the model's own settings for generation.

    Rows, scores and samples use the tokenizer's ids, so these replace the ids in the model's config.json. Differences
    are logged.
    """
    from transformers import GenerationConfig

    ids = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": pad}
    for name, number in ids.items():
        own = getattr(loaded.config, name, None)
        if own not in (None, number):
            log.info("model: its config.json has %s %s; %d, the tokenizer's, is used", name, own, number)
        setattr(loaded.config, name, number)
    loaded.generation_config = GenerationConfig(**ids)
