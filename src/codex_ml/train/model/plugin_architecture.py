"""The shape of an architecture of another package (entry point `codex_ml.architectures`).

The package gives the settings of a model that transformers has, not the code of one: every later reader of models/model
would need that code. `check_isolation` then proves on the built model that no document of a row sees another one.
Used by: train.model.build.
"""

from __future__ import annotations

from typing import Any

from codex_ml.core.errors import UserError, one_line
from codex_ml.core.plugin_lock import load_locked
from codex_ml.core.plugins import UnusablePlugin
from codex_ml.train.config import Model
from codex_ml.train.model.foreign import UNSAFE
from codex_ml.train.presets import SHAPE

DECIDED = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings")


def plugin_sizes(shape: Model) -> tuple[str, dict[str, Any]]:
    """Call the plug-in with the sizes of `shape`, as keyword arguments, and return what it returns.

    Returns:
        (model_type, a causal model of transformers; settings of its configuration class).

    Raises:
        UserError: when it cannot be imported, raises, or returns a model type or a setting that does not exist.
    """
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = shape.architecture
    given = {key: getattr(shape, key) for key in SHAPE if key not in ("architecture", "tie_embeddings")}
    settings = load_locked("architectures", name)
    try:
        found = dict(settings(**given))
    except UserError:
        raise
    except Exception as error:
        raise UnusablePlugin("architectures", name, f"failed: {type(error).__name__}: {one_line(error)}") from None
    kind = found.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        why = f"must name a causal model of transformers as model_type, not {kind!r}"
        raise UnusablePlugin("architectures", name, why)
    known = CONFIG_MAPPING[kind]().to_dict().keys() | CONFIG_MAPPING[kind].attribute_map.keys()
    if other := [key for key in found if key not in known or key in DECIDED or UNSAFE.search(key)]:
        raise UnusablePlugin("architectures", name, f"sets {other[0]}, which is not a size of {kind}; remove it")
    return str(found.pop("model_type")), found
