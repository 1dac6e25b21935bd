"""Load a model into memory in float32, check that every tensor fits, and run no code of its folder.

Used by: train (checks what it wrote), evaluate and safety_audit. It is here, not in `inference`, so that an edit of
`inference` does not retrain a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import UserError, one_line
from codex_ml.core.out_of_memory import is_out_of_memory
from codex_ml.core.pipeline import remedy
from codex_ml.modeling.hardware import device_memory
from codex_ml.modeling.memory_need import refuse_large_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(folder: Path, *, device: str = "cpu", attention: str = "eager") -> PreTrainedModel:
    """Load a model folder that this program wrote: safetensors and settings only, in evaluation mode.

    Args:
        folder: config.json and model.safetensors in the layout of Hugging Face.
        device: such as "cpu" or "cuda:0".
        attention: "eager" or "sdpa"; the folder's own setting is ignored.

    Raises:
        UserError: when the folder is missing, is not a model, or its weights do not fit its settings.

    >>> model = load_model(Path("models/model"))  # doctest: +SKIP
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if not (folder / "model.safetensors").is_file():
        raise UserError(f"{folder}/model.safetensors is missing; {remedy(folder, 'name the folder of a model')}")
    refuse_large_model(folder, device_memory(torch.device(device).type))
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        classes: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model_class = classes._model_mapping[type(config)]
    except Exception as error:  # the libraries raise a dozen types for a damaged file
        if is_out_of_memory(error):
            raise
        raise _unusable(folder, error) from None
    model: Any = load_fitting(model_class, folder, folder, config=config, attn_implementation=attention)
    return model.to(device)


def load_fitting(model_class: Any, source: Path | None, folder: Path, **options: Any) -> PreTrainedModel:
    """Call `from_pretrained` and refuse weights that do not fit.

    Args:
        model_class: a model class of transformers.
        source: the folder that it reads; None if `options` have a state_dict.
        folder: for messages.
        options: further arguments of `from_pretrained`.

    Raises:
        UserError: for any error of the library, and for tensors that are missing, left over or of another shape.
    """
    import torch

    model: PreTrainedModel
    try:
        with _quiet():
            model, report = model_class.from_pretrained(
                source,
                dtype=torch.float32,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # transformers raises a dozen types for weights that do not fit
        if is_out_of_memory(error):
            raise
        raise _unusable(folder, error) from None
    for kind in ("missing", "unexpected", "mismatched"):
        if names := sorted(map(str, report[f"{kind}_keys"])):
            raise UserError(f"{folder}: {len(names)} {kind} tensors, such as {names[0][:80]}; the weights do not fit")
    model.eval()
    return model


def _unusable(folder: Path, error: Exception) -> UserError:
    return UserError(f"{folder} is not a model that can be loaded: {one_line(error)}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Switch off the progress bar of transformers and its table of keys; our own error reports the keys in one line."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    level = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
