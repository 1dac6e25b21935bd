"""Does one document of a row see another? Asked of the model in use, before it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codex_ml.errors import CheckFailed, UserError
from codex_ml.modeling.forward import packed_logits
from codex_ml.modeling.vocabulary import embedding_rows

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ROW = 24  # tokens; fewer where the model has fewer positions
TOLERANCE = {"float32": 1e-4, "packed": 5e-2}  # of the largest logit; weights in 8 or 4 bits round each batch anew


def check_isolation(model: PreTrainedModel) -> float:
    """Compare documents packed into rows, called as the loss calls the model, with each document alone.

    Two rows of three documents each, one of a single token, the last as the tail of padding is. Positions that are
    counted along the row, a mask that is ignored and attention across rows all show here.

    Returns:
        the largest difference of a logit, as a share of the largest logit (at least 1).

    Raises:
        UserError: when the architecture leaks, or cannot be called so.
        CheckFailed: when the model is so that no leak could show.
    """
    import torch

    name = model.config.model_type
    ids, positions = _rows(model)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            packed = packed_logits(model, ids, positions).float()
            alone = _alone(model, ids, positions)
            # the control: the same tokens as one document a row, which is what a leak looks like
            leaking = packed_logits(model, ids, torch.arange(ids.shape[1], device=ids.device).expand_as(ids)).float()
    except Exception as error:  # whatever an architecture raises that has no such arguments
        raise UserError(
            f"{name} cannot be trained on packed rows: it takes no mask of documents with their positions "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); use another architecture"
        ) from None
    finally:
        model.train(was_training)
    kind = "float32" if all(p.dtype == torch.float32 for p in model.parameters()) else "packed"
    scale = max(1.0, float(alone.abs().max()))
    difference, control = (float((logits - alone).abs().max()) / scale for logits in (packed, leaking))
    if not difference <= TOLERANCE[kind]:  # NaN too
        raise UserError(
            f"{name} leaks between the documents of a row: a packed document's logits differ by {difference:.1e} from "
            f"those of the document alone (allowed: {TOLERANCE[kind]:.0e}); use another architecture"
        )
    if control <= TOLERANCE[kind]:
        raise CheckFailed(
            f"{name}: whether documents of a row see each other cannot be told, because one document's logits differ "
            f"by {control:.1e} only when they do; the model attends to nothing"
        )
    return difference


def _rows(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """input_ids, position_ids: (2, n) int64."""
    import torch

    n = min(ROW, int(getattr(model.config, "max_position_embeddings", ROW) or ROW))
    lengths = [(n // 2 - 1, 1, n - n // 2), (1, n // 3, n - n // 3 - 1)]
    positions = torch.stack([torch.cat([torch.arange(length) for length in row]) for row in lengths])
    dice = torch.Generator().manual_seed(0)  # of its own: the run's random numbers stay where they are
    ids = torch.randint(0, embedding_rows(model), positions.shape, generator=dice)
    return ids.to(model.device), positions.to(model.device)


def _alone(model: PreTrainedModel, ids: Tensor, positions: Tensor) -> Tensor:
    """(2, n, vocab) float32: the logits of each document in a call of its own, called as evaluation does."""
    import torch

    rows = []
    for row, position in zip(ids, positions, strict=True):
        starts = torch.nonzero(position == 0).flatten().tolist()
        documents = row.split([end - begin for begin, end in zip(starts, [*starts[1:], len(row)], strict=True)])
        rows.append(torch.cat([model(input_ids=d[None], use_cache=False).logits[0].float() for d in documents]))
    return torch.stack(rows)
