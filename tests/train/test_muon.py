"""Muon against `torch.optim.Muon`, against the singular value decomposition, and against numbers computed by hand."""

from __future__ import annotations

import pytest
import torch
from numpy.polynomial import Polynomial
from torch import Tensor

from codex_ml.train import muon
from codex_ml.train.muon import Muon, newton_schulz

pytestmark = pytest.mark.usefixtures("one_thread")

ONE_STEP = Polynomial([0, 3.4445, 0, -4.7750, 0, 2.0315])  # Jordan 2024: 3.4445 s - 4.7750 s^3 + 2.0315 s^5
SHAPES = [(24, 24), (16, 40), (40, 16), (96, 32), (64, 48)]
SETTINGS = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95}


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def five_steps(values: Tensor) -> Tensor:
    """What five steps make of singular values whose squares sum to 1."""
    found = values.double().numpy()
    for _ in range(5):
        found = ONE_STEP(found)
    return torch.from_numpy(found)


def parameters(shapes: list[tuple[int, ...]], dtype: torch.dtype, *, seed: int = 0) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(random(*shape, seed=seed + n, dtype=dtype)) for n, shape in enumerate(shapes)]


def optimizer(matrices: list[torch.nn.Parameter], *, dtype: torch.dtype | None = None, **changes: float) -> Muon:
    """Muon for these matrices, and AdamW for one vector without a gradient."""
    vector = torch.nn.Parameter(torch.ones(3))
    groups = [{"params": matrices, **SETTINGS, **changes}, {"params": [vector], "lr": 0.1, "weight_decay": 0.0}]
    return Muon(groups, betas=(0.9, 0.95), dtype=dtype)


def step(optimizer: torch.optim.Optimizer, matrices: list[torch.nn.Parameter], *, seed: int = 0) -> None:
    for number, matrix in enumerate(matrices):
        matrix.grad = random(*matrix.shape, seed=1000 * seed + number, dtype=matrix.dtype)
    optimizer.step()


@pytest.mark.parametrize("shape", SHAPES)
def test_newton_schulz_moves_the_singular_values_and_keeps_the_singular_vectors(shape):
    matrix = random(*shape)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    expected = (left * five_steps(values / values.norm())) @ right
    torch.testing.assert_close(newton_schulz(matrix[None])[0], expected, rtol=0, atol=1e-11)


def range_of_the_polynomial() -> tuple[float, float]:
    """The lowest and the highest value that the polynomial gives to a singular value that a former step gave.

    It rises to a maximum, falls to a minimum and rises again. The maximum is above 1 and the minimum follows it, so
    these two values bound all later steps. Both ends are mapped into the range, which therefore maps into itself.
    """
    highest, lowest = (float(ONE_STEP(root.real)) for root in ONE_STEP.deriv().roots() if root.real > 0)
    assert lowest < ONE_STEP(lowest) < highest and lowest < ONE_STEP(highest) < highest
    return lowest, highest


def test_the_range_of_the_polynomial():
    assert range_of_the_polynomial() == pytest.approx((0.68183, 1.20237), abs=1e-5)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.float32, 1e-4), (torch.bfloat16, 0.01)])
@pytest.mark.parametrize("shape", [(64, 48), (352, 128), (128, 352), (32, 64)])
def test_singular_values_of_random_matrices_end_near_one(shape, dtype, error):
    """Those above 0.0015 of the matrix's norm; a square random matrix has smaller ones."""
    lowest, highest = range_of_the_polynomial()
    for seed in range(5):
        matrix = random(*shape, seed=seed)
        assert torch.linalg.svdvals(matrix / matrix.norm()).min() > 0.0015
        found = torch.linalg.svdvals(newton_schulz(matrix[None].to(dtype))[0].double())
        assert lowest - error <= found.min() and found.max() <= highest + error


def test_values_from_the_documented_threshold_end_in_the_range():
    lowest, highest = range_of_the_polynomial()
    found = five_steps(torch.linspace(0.0016, 1, 100_001))
    assert found.min() >= lowest and found.max() <= highest
    assert five_steps(torch.tensor([0.0014])) < lowest


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (16, 48), (48, 16)])
def test_an_orthogonal_matrix_is_multiplied_by_one_number(rows, columns):
    """All of its n singular values are equal, so each is 1 / sqrt(n) of the norm, at any scale of the matrix."""
    n = min(rows, columns)
    matrix = torch.linalg.qr(random(max(rows, columns), n)).Q.reshape(max(rows, columns), n)
    matrix = matrix if rows >= columns else matrix.mT
    scale = float(five_steps(torch.tensor([n**-0.5], dtype=torch.float64)))
    torch.testing.assert_close(newton_schulz(7 * matrix[None])[0], scale * matrix, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_transposed_matrix_gives_the_transposed_result(shape):
    matrix = random(*shape)[None]
    torch.testing.assert_close(newton_schulz(matrix.mT), newton_schulz(matrix).mT, rtol=0, atol=1e-12)


def test_a_transposed_parameter_gets_the_transposed_update():
    [wide], [tall] = parameters([(16, 40)], torch.float64), parameters([(40, 16)], torch.float64)
    tall.data.copy_(wide.data.mT)
    ours = optimizer([wide, tall])
    for seed in range(3):
        wide.grad = random(16, 40, seed=seed)
        tall.grad = wide.grad.mT.contiguous()
        ours.step()
    torch.testing.assert_close(tall.data, wide.data.mT, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "inside", "error"),
    [
        (torch.float32, None, 1e-6),
        (torch.float64, None, 1e-12),
        # an update has entries of about 0.02 x 0.2; a machine may round products of a batch to 8 bits in another order
        (torch.float32, torch.bfloat16, 5e-4),
    ],
)
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("momentum", [0.0, 0.95])
def test_steps_equal_those_of_torch(monkeypatch, dtype, inside, error, steps, momentum):
    """torch computes Newton-Schulz in bfloat16; without this cast it computes in the type of the gradient."""
    if inside is None:
        monkeypatch.setattr(Tensor, "bfloat16", Tensor.clone)  # a copy, as the cast is: torch then divides in place
    ours, theirs = (parameters(SHAPES, dtype) for _ in range(2))
    mine = optimizer(ours, dtype=inside, momentum=momentum)
    torchs = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **{**SETTINGS, "momentum": momentum})
    for seed in range(steps):
        step(mine, ours, seed=seed)
        step(torchs, theirs, seed=seed)
    for found, expected, start in zip(ours, theirs, parameters(SHAPES, dtype), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=error)
        assert (found - start).abs().max() > 1e-3


@pytest.mark.parametrize(("shape", "scale"), [((2048, 512), 9.0510), ((512, 512), 4.5255)])
def test_the_update_is_a_fifth_of_the_root_of_the_longer_side(shape, scale):
    """0.2 sqrt(2048) and 0.2 sqrt(512), times what five steps make of 512 equal singular values."""
    matrix = torch.nn.Parameter(torch.zeros(shape))
    matrix.grad = torch.eye(*shape)
    optimizer([matrix], lr=1.0, momentum=0.0).step()
    expected = -scale * float(five_steps(torch.tensor([512**-0.5])))
    assert torch.equal(matrix != 0, torch.eye(*shape) != 0)
    torch.testing.assert_close(matrix.diagonal(), torch.full((512,), expected), rtol=1e-4, atol=0)


# Equal to the last bit on the CPUs measured; another library may add the products of a batch in another order.
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_equals_its_matrices_one_by_one(shape, dtype, error):
    matrices = random(5, *shape, dtype=dtype)
    alone = torch.cat([newton_schulz(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(newton_schulz(matrices), alone, rtol=0, atol=error)


def test_matrices_above_the_size_of_a_batch_are_updated_in_several(monkeypatch):
    sizes: list[tuple[int, ...]] = []

    def watched(matrices: Tensor) -> Tensor:
        sizes.append(tuple(matrices.shape))
        return newton_schulz(matrices)

    shapes = [(4, 6)] * 5 + [(30, 20)] * 2
    whole, parts = (parameters(shapes, torch.float64) for _ in range(2))
    step(optimizer(whole), whole)
    monkeypatch.setattr(muon, "newton_schulz", watched)
    monkeypatch.setattr(muon, "BATCH_NUMBERS", 2 * 4 * 6)
    step(optimizer(parts), parts)
    assert sizes == [(2, 4, 6), (2, 4, 6), (1, 4, 6), (1, 30, 20), (1, 30, 20)]  # a matrix is never cut
    for found, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("inside", [None, torch.bfloat16])
def test_a_gradient_of_zeros_leaves_the_decay_only(inside):
    [matrix] = parameters([(8, 12)], torch.float32)
    start = matrix.detach().clone()
    matrix.grad = torch.zeros_like(matrix)
    optimizer([matrix], dtype=inside).step()
    assert torch.equal(matrix, start * (1 - 0.02 * 0.1))


def test_a_parameter_without_a_gradient_is_left_alone():
    matrices = parameters([(8, 12)] * 3, torch.float32)
    start = [matrix.detach().clone() for matrix in matrices]
    ours = optimizer(matrices)
    for matrix in matrices[::2]:
        matrix.grad = torch.ones_like(matrix)
    ours.step()
    assert [torch.equal(matrix, old) for matrix, old in zip(matrices, start, strict=True)] == [False, True, False]
    assert set(ours.state) == {matrices[0], matrices[2]}


def test_the_other_parameters_get_the_step_of_adamw():
    [matrix], ours, theirs = (
        parameters([(8, 12)], torch.float32),
        *(parameters([(6, 4), (5,)], torch.float32) for _ in range(2)),
    )
    own = {"lr": 0.03, "weight_decay": 0.2}
    mine = Muon([{"params": [matrix], **SETTINGS}, {"params": ours, **own}], betas=(0.8, 0.9))
    torchs = torch.optim.AdamW(theirs, betas=(0.8, 0.9), eps=1e-8, fused=True, **own)
    for seed in range(3):
        matrix.grad = random(8, 12, seed=seed, dtype=torch.float32)
        step(mine, ours, seed=seed)
        step(torchs, theirs, seed=seed)
    assert all(torch.equal(found, expected) for found, expected in zip(ours, theirs, strict=True))
    assert {key: set(mine.state[p]) for key, p in (("matrix", matrix), ("other", ours[0]))} == {
        "matrix": {"momentum_buffer"}, "other": {"step", "exp_avg", "exp_avg_sq"}
    }  # fmt: skip


def test_a_rate_that_is_set_in_a_group_counts_for_both_optimizers():
    [matrix], [vector] = parameters([(8, 12)], torch.float32), parameters([(5,)], torch.float32)
    start = [matrix.detach().clone(), vector.detach().clone()]
    ours = Muon(
        [{"params": [matrix], **SETTINGS}, {"params": [vector], "lr": 0.1, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    for group in ours.param_groups:
        group["lr"] = 0.0
    step(ours, [matrix, vector])
    assert torch.equal(matrix, start[0]) and torch.equal(vector, start[1])
    ours.zero_grad(set_to_none=True)
    assert matrix.grad is None and vector.grad is None


def test_an_overflow_of_fp16_skips_both_optimizers():
    """The scaler finds it in one gradient, and neither Muon nor AdamW moves; then it lowers its scale."""
    [matrix], [vector] = parameters([(8, 12)], torch.float32), parameters([(5,)], torch.float32)
    ours = Muon(
        [{"params": [matrix], **SETTINGS}, {"params": [vector], "lr": 0.1, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for overflow in (matrix, vector, None):
        old = [matrix.detach().clone(), vector.detach().clone()]
        scaler.scale(matrix.sum() + vector.sum()).backward()
        if overflow is not None:
            overflow.grad.view(-1)[0] = float("inf")
        scaler.unscale_(ours)
        scaler.step(ours)
        scaler.update()
        same = [torch.equal(matrix, old[0]), torch.equal(vector, old[1])]
        assert same == [overflow is not None] * 2
        assert bool(ours.state) == (overflow is None)
        ours.zero_grad()
    assert scaler.get_scale() == 1.0  # 4 / 2 / 2
