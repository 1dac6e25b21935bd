"""Check that no document of a batch sees another one, on the model itself, before it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codex_ml.core.errors import CheckFailed, UserError, one_line
from codex_ml.core.out_of_memory import is_out_of_memory
from codex_ml.modeling.encoder_decoder import is_encoder_decoder, logits_by_halves, split_rows
from codex_ml.modeling.forward import packed_logits
from codex_ml.modeling.rows import IGNORE
from codex_ml.train.model.vocabulary import embedding_rows

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ROW = 24  # tokens; fewer where the model has fewer positions
TOLERANCE = 1e-4  # of the largest logit


def check_isolation(model: PreTrainedModel) -> float:
    """Compare the logits of packed documents, computed as in the loss, with the logits of each document alone.

    Returns:
        the largest difference of a logit, divided by the largest logit or by 1, whichever is larger.

    Raises:
        UserError: when the architecture leaks, or does not accept the arguments that packed rows need.
        CheckFailed: when even a deliberate leak does not change the logits, so that the check shows nothing.
    """
    import torch

    name, was_training = model.config.model_type, model.training
    model.eval()
    try:
        with torch.no_grad():
            wanted, found, leaking = (_halves if is_encoder_decoder(model) else _packed)(model)
    except Exception as error:  # an architecture without these arguments can raise anything
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{name} cannot be trained on packed rows: it does not accept a document mask with positions "
            f"({type(error).__name__}: {one_line(error)}); use another architecture"
        ) from None
    finally:
        model.train(was_training)
    scale = max(1.0, float(wanted.abs().max()))
    difference, control = (float((logits - wanted).abs().max()) / scale for logits in (found, leaking))
    if not difference <= TOLERANCE:  # NaN too
        raise UserError(
            f"{name} leaks between the documents of a row: a packed document's logits differ by {difference:.1e} from "
            f"those without the other documents (allowed: {TOLERANCE:.0e}); use another architecture"
        )
    if control <= TOLERANCE:
        raise CheckFailed(
            f"{name}: cannot check whether documents of a row see each other: even when they do, a document's logits "
            f"differ by only {control:.1e}; the model attends to nothing"
        )
    return difference


def _packed(model: PreTrainedModel) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logits of a decoder-only model: of documents alone, packed, and with a deliberate leak.

    Each of two rows has three documents, one of them of a single token. The last document also shows what happens to
    the padding at the end of a row. The comparison detects positions that are counted along the row, a mask that is
    ignored, and attention across rows. Weights of 8 or 4 bits round differently in calls of different shapes, so with
    them each document is compared with itself beside other documents.
    """
    import torch

    ids, positions = _rows(model)
    one_document = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    compare = _alone if all(p.dtype == torch.float32 for p in model.parameters()) else _beside_others
    found, leaking = (packed_logits(model, ids, at).float() for at in (positions, one_document))
    return compare(model, ids, positions), found, leaking


def _halves(model: PreTrainedModel) -> tuple[Tensor, Tensor, Tensor]:
    """The same for an encoder-decoder: records of different lengths in one batch, and each record alone.

    Only padding can leak here, from the encoder's or the decoder's inputs. The deliberate leak attends to it.
    """
    import torch

    (ids, _), start, length = _rows(model), model.config.decoder_start_token_id, ROW
    contexts, ends = torch.tensor([1, length // 2]), torch.tensor([length // 3, length])
    at = torch.arange(length)
    positions = torch.where(at < ends[:, None], at, at - ends[:, None]).to(ids.device)
    targets = (at >= contexts[:, None]) & (at < ends[:, None])
    labels = torch.where(targets.to(ids.device), ids.roll(-1, 1), IGNORE)
    found = logits_by_halves(model, ids, labels, positions)

    halves = split_rows(ids, labels, positions, start=start)
    inputs = {"input_ids": halves.input_ids, "decoder_input_ids": halves.decoder_input_ids}
    unmasked = model(**inputs, use_cache=False).logits.flatten(0, 1)[halves.place]
    alone = []
    for row, (begin, end) in enumerate(zip(contexts.tolist(), ends.tolist(), strict=True)):
        inputs = {"input_ids": ids[row, None, : begin + 1], "decoder_input_ids": ids[row, None, begin:end].clone()}
        inputs["decoder_input_ids"][0, 0] = start
        alone.append(model(**inputs, use_cache=False).logits[0])
    return torch.cat(alone).float(), found[targets].float(), unmasked[targets].float()


def _rows(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """input_ids, position_ids: (2, n) int64."""
    import torch

    n = min(ROW, int(getattr(model.config, "max_position_embeddings", ROW) or ROW))
    lengths = [(n // 2 - 1, 1, n - n // 2), (1, n // 3, n - n // 3 - 1)]
    positions = torch.stack([torch.cat([torch.arange(length) for length in row]) for row in lengths])
    rng = torch.Generator().manual_seed(0)  # own RNG: must not advance the run's
    ids = torch.randint(0, embedding_rows(model), positions.shape, generator=rng)
    return ids.to(model.device), positions.to(model.device)


def _alone(model: PreTrainedModel, ids: Tensor, positions: Tensor) -> Tensor:
    """(2, n, vocab) float32: the logits of each document in its own call, as in evaluation."""
    import torch

    rows = []
    for row, position in zip(ids, positions, strict=True):
        starts = torch.nonzero(position == 0).flatten().tolist()
        documents = row.split([end - begin for begin, end in zip(starts, [*starts[1:], len(row)], strict=True)])
        rows.append(torch.cat([model(input_ids=d[None], use_cache=False).logits[0].float() for d in documents]))
    return torch.stack(rows)


def _beside_others(model: PreTrainedModel, ids: Tensor, positions: Tensor) -> Tensor:
    """(2, n, vocab) float32: the logits of each document in a batch in which all other tokens are different ones."""
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
