"""Write a model and its tokenizer as one GGUF file, the format of llama.cpp.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Names of tensors come from the package `gguf`, which
llama.cpp's own converter uses.

Used by: `codex-ml export gguf`.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.cli.model_export import ExportedFile, refuse_export_target
from codex_ml.core.errors import UserError
from codex_ml.core.io import atomic_file, read_json
from codex_ml.core.packages import install_extra

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter
    from transformers import PreTrainedModel

# model_type -> architecture of GGUF. llama.cpp reads Mistral as a Llama.
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gpt2": "gpt2"}
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")  # Conv1D of GPT-2
LARGEST_HALF = 65_504.0  # of float16
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # kinds of tokens
# What the programs that read GGUF compute, for settings that it does not hold. All others of these configs are written,
# are checked in `_refuse`, or change no logits.
SILU, TANH_GELU = ("silu", "swish"), ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "llama": {"hidden_act": SILU},
    "mistral": {"hidden_act": SILU},
    "qwen2": {"hidden_act": SILU},
    "qwen3": {"hidden_act": SILU, "attention_bias": (False,)},
    "gpt2": {
        "activation_function": TANH_GELU,
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
}


def write_gguf(source: Path, target: Path, *, half: bool, tokenizer: bool, scratch: Path) -> ExportedFile:
    """Write `source`, a folder of a model in the Hugging Face layout, to the file `target`.

    Args:
        half: matrices in float16 instead of float32; vectors stay in float32, as llama.cpp expects.
        tokenizer: whether the tokenizer of the folder is included.

    Raises:
        UserError: for an architecture, a setting or a tokenizer that GGUF or the package cannot hold.
    """
    if find_spec("gguf") is None:
        raise UserError(f"a GGUF file needs the package gguf; {install_extra('gguf')}")
    refuse_export_target(target, source)
    pieces = _tokenizer_of(source) if tokenizer else None  # refuses before the weights are read
    import gguf

    from codex_ml.train.model.local_model import load_local

    model = load_local(source, attention="eager", scratch=scratch)
    _refuse(model.config, source)
    if pieces:
        _pad(pieces, model.config.vocab_size, source)
    architecture = ARCHITECTURES[model.config.model_type]
    count = 0
    with atomic_file(target) as handle:
        writer = gguf.GGUFWriter(handle.name, architecture)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.ALL_F32)
        _add_shape(writer, model.config)
        if pieces:
            _add_tokenizer(writer, pieces, model.config)
        else:
            writer.add_tokenizer_model("none")  # llama.cpp then takes the number of tokens from the vocab_size
        for name, tensor in _tensors(model, architecture):
            writer.add_tensor(name, _stored(tensor, name, half=half))
            count += 1
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    tokens = len(pieces["tokens"]) if pieces else 0
    return ExportedFile(file=str(target), architecture=architecture, tensors=count, tokens=tokens)


def _refuse(config: Any, source: Path) -> None:
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise UserError(
            f"{source}: the architecture {kind} has no export to GGUF here; {', '.join(ARCHITECTURES)} have one. "
            "`codex-ml export merged` writes a Hugging Face folder of any"
        )
    for name, allowed in FIXED[kind].items():
        if (value := getattr(config, name)) not in allowed:
            raise UserError(
                f"{source}/config.json: {name} is {value}, which GGUF cannot say for {kind}; the programs that read it "
                f"compute with {' or '.join(map(str, allowed))}"
            )
    if (rope := getattr(config, "rope_parameters", None) or {}).get("rope_type", "default") != "default":
        raise UserError(f"{source}: the export knows no scaling of rotary embeddings, and this is {rope['rope_type']}")
    window = getattr(config, "sliding_window", None)
    if window and window < config.max_position_embeddings and getattr(config, "use_sliding_window", True):
        raise UserError(
            f"{source}: its attention window of {window} positions is shorter than its context of "
            f"{config.max_position_embeddings}, which the export cannot say"
        )


def _add_shape(writer: GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_rope_dimension_count(head)
    writer.add_key_length(head)
    writer.add_value_length(head)


def _tensors(model: PreTrainedModel, architecture: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and float32 values of each parameter, as GGUF has them; a tied output head is left out, as GGUF ties it."""
    import gguf

    config: Any = model.config
    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for own, parameter in model.named_parameters():
        stem, _, kind = own.rpartition(".")
        name = names.get_name(stem)
        if name is None:
            raise UserError(f"GGUF has no name for the tensor {own} of this model")
        values = parameter.detach().numpy()
        if config.model_type == "gpt2" and own.endswith(TRANSPOSED):
            values = values.T
        elif architecture == "llama" and ".self_attn.q_proj." in own:
            values = interleaved(values, config.num_attention_heads)
        elif architecture == "llama" and ".self_attn.k_proj." in own:
            values = interleaved(values, config.num_key_value_heads)
        yield f"{name}.{kind}", values


def interleaved(values: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key projection in the order of llama.cpp's Llama.

    transformers rotates the pairs (i, i + d/2) of a head of d features, llama.cpp the pairs (2i, 2i + 1).

    >>> import numpy as np
    >>> interleaved(np.arange(8)[:, None], heads=2)[:, 0].tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    pairs = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _stored(values: np.ndarray, name: str, *, half: bool) -> np.ndarray:
    import numpy as np

    if not half or values.ndim < 2:
        return np.ascontiguousarray(values, dtype=np.float32)
    if (largest := float(np.abs(values).max(initial=0.0))) > LARGEST_HALF:
        raise UserError(f"{name} holds {largest:.3g}, which float16 cannot; export float32")
    return np.ascontiguousarray(values, dtype=np.float16)


def _tokenizer_of(source: Path) -> dict[str, Any]:
    """Tokens, kinds, merges and chat template of a tokenizer that GGUF can describe exactly.

    That is byte-level BPE with GPT-2's rule for cutting text into words: the kind byte_bpe.
    """
    file = source / "tokenizer.json"
    description = read_json(file)
    model = description.get("model") if isinstance(description, dict) else None
    if not isinstance(model, dict) or not _is_gpt2_like(description, model):
        raise UserError(
            f"{file}: GGUF describes a tokenizer by the name of a known one, and this is not GPT-2's byte-level BPE "
            "(tokenizer.kind byte_bpe); --no-tokenizer exports the weights alone"
        )
    by_id = {number: token for token, number in model["vocab"].items()}
    kinds = dict.fromkeys(by_id, NORMAL)
    for entry in description.get("added_tokens") or []:
        by_id[entry["id"]] = entry["content"]
        kinds[entry["id"]] = CONTROL if entry.get("special") else USER_DEFINED
    template = source / "chat_template.jinja"
    return {
        "tokens": by_id,
        "kinds": kinds,
        "merges": [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]],
        "template": template.read_text(encoding="utf-8") if template.is_file() else None,
    }


def _pad(pieces: dict[str, Any], rows: int, source: Path) -> None:
    """Give each embedding row without a token an unused one, as llama.cpp's converter does: it counts the tokens.

    Raises:
        UserError: when the tokenizer has more ids than the model has rows.
    """
    tokens, kinds = pieces["tokens"], pieces["kinds"]
    if (ids := max(tokens, default=-1) + 1) > rows:
        raise UserError(
            f"{source}: the tokenizer has {ids} ids, but the model has {rows} embedding rows; "
            "they do not belong together"
        )
    pieces["tokens"] = [tokens.get(number, f"[PAD{number}]") for number in range(rows)]
    pieces["kinds"] = [kinds.get(number, UNUSED) for number in range(rows)]


def _is_gpt2_like(description: dict[str, Any], model: dict[str, Any]) -> bool:
    cut = description.get("pre_tokenizer") or {}
    plain = not (model.get("byte_fallback") or model.get("continuing_subword_prefix") or model.get("ignore_merges"))
    return (
        model.get("type") == "BPE"
        and plain
        and description.get("normalizer") is None
        and (cut.get("type"), cut.get("add_prefix_space"), cut.get("use_regex")) == ("ByteLevel", False, True)
    )


def _add_tokenizer(writer: GGUFWriter, pieces: dict[str, Any], config: Any) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(pieces["tokens"])
    writer.add_token_types(pieces["kinds"])
    writer.add_token_merges(pieces["merges"])
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    for add, number in (
        (writer.add_bos_token_id, config.bos_token_id),
        (writer.add_eos_token_id, ends[0]),
        (writer.add_pad_token_id, config.pad_token_id),
    ):
        if number is not None:
            add(number)
    if len(ends) > 1:
        writer.add_eot_token_id(ends[1])
    writer.add_add_bos_token(False)
    if pieces["template"] is not None:
        writer.add_chat_template(pieces["template"])
