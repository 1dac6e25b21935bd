"""The model that training started from, as the reference model of membership inference.

It has read none of the training documents in this training. It must read the same tokens as the trained model.

Used by: stages/safety_audit.py, `codex-ml audit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import UserError
from codex_ml.core.hashing import hash_path
from codex_ml.core.out_of_memory import is_out_of_memory
from codex_ml.modeling.train_files import Training
from codex_ml.safety_audit.audit_job import Reference

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from codex_ml.tokens.text_tokenizer import TextTokenizer


def base_reference(training: Training, folder: Path, tokenizer: TextTokenizer, device: str) -> Reference:
    """The base model of a model that `train` wrote, if it can be compared with it.

    Args:
        folder: of the trained model.
    """
    base = training.model.base
    if base is None:
        return Reference(why="the model was trained from scratch, so it has no base model to be compared with")
    path = Path(base.path)
    if not path.is_dir():
        return Reference(why=f"the base model {path} is not a folder; name one with codex-ml audit --reference")
    try:
        if hash_path(path).sha256 != base.sha256:
            return Reference(why=f"{path} does not hold the files that training started from")
        different = other_tokens(vocabulary_of(path), tokenizer)
    except UserError as error:
        return Reference(why=f"the base model cannot be compared: {error}")
    if different:
        return Reference(why=f"the base model {path} reads other tokens: {different}")
    return Reference(lambda: load_base(folder, path, device))


def load_base(folder: Path, base: Path, device: str) -> PreTrainedModel:
    """Load the weights of a base model with the settings of the model that was trained from it.

    `train` has checked the files of the base model, and the caller their hash. Its config.json is not read.

    Raises:
        UserError: if its weights do not fit these settings.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    from codex_ml.modeling.trained_model import load_fitting

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    model_class: Any = AutoModelForCausalLM._model_mapping[type(config)]
    model: Any = load_fitting(model_class, base, base, config=config, attn_implementation="eager")
    return model.to(device)


def vocabulary_of(folder: Path) -> dict[str, int]:
    """The id of each token of a tokenizer.json, added tokens included.

    Raises:
        UserError: if the file is missing, or is not a tokenizer.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError(f"{folder} has no tokenizer.json")
    try:
        vocabulary: dict[str, int] = Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True)
    except BaseException as error:  # the Rust library raises PanicException, which is not an Exception
        if isinstance(error, KeyboardInterrupt | SystemExit) or is_out_of_memory(error):
            raise
        raise UserError(f"{file} cannot be read as a tokenizer") from None
    return vocabulary


def other_tokens(reference: Mapping[str, int], tokenizer: TextTokenizer) -> str:
    """Say how the tokens of a reference model differ from those of the audited model; "" if they do not.

    The audited model may have further special tokens, such as a padding token, which its tokenizer got later: text
    never becomes them. With further pieces it reads the same text as other tokens.
    """
    own: dict[str, int] = tokenizer.backend.get_vocab(with_added_tokens=True)
    count = sum(own.get(token) != number for token, number in reference.items())
    if count:
        return f"{count} of {len(reference)} tokens have another id, or none"
    more = len(own.keys() - reference.keys() - tokenizer.special.keys())
    return f"the audited model reads {more} further pieces" if more else ""
