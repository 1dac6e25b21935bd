"""Low-rank adapters with peft: add, save and merge them, and check that merging does not change the model."""

from __future__ import annotations

import difflib
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.io import read_json, write_json
from codex_ml.modeling.trained_model import load_model
from codex_ml.train.config import Lora
from codex_ml.train.model.vocabulary import embedding_rows

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel

log = logging.getLogger("codex_ml")
ALL_LINEAR = "all-linear"
ADAPTER = "adapter"  # its folder beside the merged model
TOLERANCE = 1e-5  # share of the largest logit, float32: merging changes only the order of additions


def add_adapters(model: PreTrainedModel, lora: Lora, *, seed: int, added: Sequence[int] = ()) -> PeftModel:
    """Freeze the model and add an adapter to every matched module (LoRA, Hu et al. 2021, arXiv:2106.09685).

    An adapter of rank r has r x (in + out) parameters. Its second matrix starts at zero, so the output of the model
    does not change. The seed decides its first matrix. The matches of each target and the share of parameters that
    train are logged.

    Args:
        added: ids of added pieces. Their rows of the embedding, and of an output head of its own, train too.

    Raises:
        UserError: when a target matches no module (the message names the nearest one), targets need both settings of
            peft's `fan_in_fan_out`, `lora.bias` names biases that are not there, or the rows of `added` cannot train.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    modules = match_targets(model, lora.targets)
    stored_transposed = {_is_conv1d(module) for module in modules.values()}
    if len(stored_transposed) == 2:  # peft has one setting for all
        raise UserError(
            "model.lora.targets match the Conv1D layers of GPT-2, whose weights are stored transposed, and other "
            "layers too; name targets of one kind, such as c_attn and c_proj"
        )
    rows = rows_to_train(model, modules, added) if added else None
    untie_targets(model, modules)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=sorted(modules),  # full names, so that peft matches the same modules
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        fan_in_fan_out=stored_transposed == {True},
        bias=lora.bias,
        trainable_token_indices=rows,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    with warnings.catch_warnings():  # from transformers to peft; users cannot act on it
        warnings.simplefilter("ignore", FutureWarning)
        adapted: PeftModel = get_peft_model(model, config)
    if lora.bias != "none" and not any(name.endswith(".bias") for name in trainable_parameters(adapted)):
        where = "the model" if lora.bias == "all" else "what model.lora.targets match"
        raise UserError(f"model.lora.bias {lora.bias}: {where} has no bias that could train; use none")
    for parameter in trainable_parameters(adapted).values():
        parameter.data = parameter.data.float()
    trained = sum(p.numel() for p in trainable_parameters(adapted).values())
    total = sum(p.numel() for p in adapted.parameters())
    log.info("model: adapters train %s of %s parameters (%.2f %%)", f"{trained:,}", f"{total:,}", 100 * trained / total)
    return adapted


def match_targets(model: nn.Module, targets: Sequence[str]) -> dict[str, nn.Module]:
    """Return the modules that get an adapter, by full name; log the number of matches of each target.

    Args:
        targets: ends of module names, such as q_proj or mlp.c_proj, or all-linear: all linear layers except the output
            head.

    Raises:
        UserError: when a target matches nothing.
    """
    adaptable = {name: module for name, module in model.named_modules() if _is_adaptable(module)}
    head = model.get_output_embeddings()  # type: ignore[operator]
    matched: dict[str, nn.Module] = {}
    for target in targets:
        if target == ALL_LINEAR:
            found = {n: m for n, m in adaptable.items() if m is not head and not _is_embedding(m)}
        else:
            found = {n: m for n, m in adaptable.items() if n == target or n.endswith(f".{target}")}
        if not found:
            raise UserError(f"model.lora.targets: {target} matches no module; {_nearest(target, adaptable)}")
        log.info("model: target %s matches %d modules", target, len(found))
        matched |= found
    return matched


def untie_targets(model: PreTrainedModel, modules: dict[str, nn.Module]) -> None:
    """Untie the output head from the embedding if an adapter changes one of them.

    peft 0.21 would merge the change into the shared matrix. Then it would affect both, and the logits would change.
    """
    from torch import nn

    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is not embedding.weight or not any(module in (head, embedding) for module in modules.values()):
        return
    head.weight = nn.Parameter(embedding.weight.detach().clone())
    model.config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}
    log.info("model: untied the output head from the embedding, because an adapter changes one of them")


def rows_to_train(model: PreTrainedModel, targets: dict[str, nn.Module], added: Sequence[int]) -> dict[str, list[int]]:
    """Return full name of a module -> rows that train whole: the embedding, and an output head of its own.

    peft trains a tied output head with the embedding.

    Raises:
        UserError: when one of them also gets an adapter, or the head has a bias, which peft 0.21 leaves out in
            TrainableTokensLayer.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    if twice := next((name for name, module in targets.items() if module in (embedding, head)), None):
        raise UserError(
            f"model.lora.targets: {twice} cannot get an adapter, because tokenizer.add_pieces trains rows of it; "
            "remove it from the targets, or add no pieces"
        )
    if getattr(head, "bias", None) is not None:
        raise UserError(
            f"model.lora: tokenizer.add_pieces trains rows of the output head, but that of {model.config.model_type} "
            "has a bias, which peft would leave out; train all weights (model.lora.rank: 0), or add no pieces"
        )
    tied = head.weight is embedding.weight
    return {names[id(module)]: list(added) for module in ([embedding] if tied else [embedding, head])}


def _is_adaptable(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, nn.Linear | nn.Embedding) or _is_conv1d(module)


def _is_conv1d(module: nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def _is_embedding(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, nn.Embedding)


def _nearest(target: str, names: dict[str, nn.Module]) -> str:
    ends = sorted({name.rsplit(".", 1)[-1] for name in names})
    near = difflib.get_close_matches(target, ends, n=1, cutoff=0.5)
    return f"{f'did you mean {near[0]}? ' if near else ''}The model has {', '.join(ends)}"


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that the optimizer changes and a checkpoint holds, by name: all, or the adapters' only."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def is_adapted(model: nn.Module) -> bool:
    """Whether the model is one that `add_adapters` returned."""
    return hasattr(model, "peft_config")


def rows_that_train(adapted: Any) -> list[int]:
    """Rows of the embedding that train beside the adapters: those of added pieces."""
    rows: dict[str, list[int]] = adapted.peft_config["default"].trainable_token_indices or {}
    return next(iter(rows.values()), [])


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json, which `PeftModel.from_pretrained` reads.

    Equal adapters give equal bytes: the target modules, which peft writes in the order of a set, are sorted. The
    README.md that peft writes is removed.
    """
    model.save_pretrained(str(folder), save_embedding_layers=False)  # only low-rank matrices, even for an embedding
    (folder / "README.md").unlink(missing_ok=True)
    config = {
        key: sorted(value) if key == "target_modules" else value
        for key, value in read_json(folder / "adapter_config.json").items()
    }
    write_json(folder / "adapter_config.json", config)


def merge_and_verify(model: PeftModel, folder: Path) -> PreTrainedModel:
    """Add the adapters to the weights, write the model to `folder`, read it back and compare logits.

    The given model cannot be used afterwards: its weights become the merged ones.

    Args:
        model: an adapted model in float32; weights of 8 or 4 bits cannot hold the sum.
        folder: an existing folder; gets config.json, generation_config.json and model.safetensors.

    Returns:
        the model that was read back, in float32 and evaluation mode, on the device of the given one.

    Raises:
        CheckFailed: when a logit of the written model differs from that of base + adapters by more than `TOLERANCE` of
            the largest one.
    """
    import torch

    device = model.device
    model.eval()
    ids = _probe(model)
    with torch.no_grad():
        wanted = model(input_ids=ids, use_cache=False).logits.float()
        merged: Any = model.merge_and_unload(safe_merge=True)
    save_model(merged, folder)
    try:
        again = load_model(folder, device=str(device), attention=merged.config._attn_implementation)
    except UserError as error:  # this program wrote it, so it is not the user's mistake
        raise CheckFailed(f"the model written to {folder.name} cannot be read back: {error}") from None
    with torch.no_grad():
        found = again(input_ids=ids, use_cache=False).logits.float()
    difference = float((found - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))
    if not difference <= TOLERANCE:  # NaN too
        raise CheckFailed(
            f"the merged model differs from the trained one: read back from {folder.name}, a logit differs by "
            f"{difference:.1e} of the largest (allowed: {TOLERANCE:.0e}); the adapter itself is correct"
        )
    log.info("model: merged adapters, logits of the saved model differ by %.1e of the largest", difference)
    return again


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write the plain Hugging Face layout: one model.safetensors, config.json, generation_config.json."""
    model.save_pretrained(folder, max_shard_size="1TB")


def _probe(model: PeftModel) -> Tensor:
    """(2, n) int64: random tokens, the same in every call."""
    import torch

    plain: Any = model.get_base_model()
    length = min(16, int(getattr(plain.config, "max_position_embeddings", 16) or 16))
    ids = torch.randint(0, embedding_rows(plain), (2, length), generator=torch.Generator().manual_seed(1))
    return ids.to(plain.device)
