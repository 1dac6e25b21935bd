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
TOLERANCE = 1e-4  # of the largest logit


def check_isolation(model: PreTrainedModel) -> float:
    """Compare documents packed into rows, called as the loss calls the model, with each document alone.

    Two rows of three documents each, one of a single token, the last as the tail of padding is. Positions that are
    counted along the row, a mask that is ignored and attention across rows all show here. Weights of 8 or 4 bits round
    otherwise in a call of another shape, so there each document is compared with itself beside other documents.

    Returns:
        the largest difference of a logit, as a share of the largest logit (at least 1).

    Raises:
        UserError: when the architecture leaks, or cannot be called so.
        CheckFailed: when the model is so that no leak could show.
    """
    import torch

    name, was_training = model.config.model_type, model.training
    ids, positions = _rows(model)
    one_document = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    compare = _alone if all(p.dtype == torch.float32 for p in model.parameters()) else _beside_others
    model.eval()
    try:
        with torch.no_grad():
            wanted = compare(model, ids, positions)
            packed = packed_logits(model, ids, positions).float()
            leaking = packed_logits(model, ids, one_document).float()  # the control: what a leak looks like
    except Exception as error:  # whatever an architecture raises that has no such arguments
        raise UserError(
            f"{name} cannot be trained on packed rows: it takes no mask of documents with their positions "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); use another architecture"
        ) from None
    finally:
        model.train(was_training)
    scale = max(1.0, float(wanted.abs().max()))
    difference, control = (float((logits - wanted).abs().max()) / scale for logits in (packed, leaking))
    if not difference <= TOLERANCE:  # NaN too
        raise UserError(
            f"{name} leaks between the documents of a row: a packed document's logits differ by {difference:.1e} from "
            f"those without the other documents (allowed: {TOLERANCE:.0e}); use another architecture"
        )
    if control <= TOLERANCE:
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


def _beside_others(model: PreTrainedModel, ids: Tensor, positions: Tensor) -> Tensor:
    """(2, n, vocab) float32: the logits of each document of a row while all other tokens of the batch are changed."""
    import torch

    document = (positions == 0).cumsum(-1)
    rows = embedding_rows(model)
    result = None
    for row in range(len(ids)):
        for number in range(1, int(document[row].max()) + 1):
            own = torch.zeros_like(ids, dtype=torch.bool)
            own[row] = document[row] == number
            logits = packed_logits(model, torch.where(own, ids, (ids + rows // 2) % rows), positions).float()
            result = torch.zeros_like(logits) if result is None else result
            result[own] = logits[own]
    assert result is not None
    return result
