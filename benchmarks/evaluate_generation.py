"""Speed of generation: our engine and `generate` of transformers in turns, greedy, on the same prompts.

    python benchmarks/evaluate_generation.py                          # the shape 7m, 32 prompts, 64 new tokens
    python benchmarks/evaluate_generation.py --shape sample --batch-size 32 --rounds 5

Rows:
    one by one      `model.generate` of transformers, one prompt per call
    batched         `model.generate` on batches of the prompts in their order, padded on the left
    ours            `codex_ml.inference.generation.generate` with the same batch size
    ours, sampled   the same with temperature, top-k, top-p, repetition penalty and a stop string: the cost of sampling

All run in one process, in float32 with eager attention. No text may end early: END has no probability. The greedy texts
of all rows are compared; texts that differ end the benchmark.
"""

from __future__ import annotations

import inspect
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from measuring import cpu_name
from train_shapes import END, PAD, SEED, SHAPES, Shape, llama

Texts = list[tuple[int, ...]]


def main(
    shape: Annotated[str, typer.Option(help=f"Model, of: {', '.join(SHAPES)}.")] = "7m",
    prompts: Annotated[int, typer.Option(min=1)] = 32,
    tokens: Annotated[int, typer.Option(min=1, help="New tokens per prompt.")] = 64,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 3,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
) -> None:
    """Measure and compare; exit with 1 if the greedy texts differ."""
    import torch

    torch.set_num_threads(threads)
    found = SHAPES[shape]
    model = without_end(llama(found, attention="eager").eval())
    asked = random_prompts(found, prompts, tokens)
    rows: dict[str, Callable[[], Texts]] = {
        "one by one": lambda: theirs(model, asked, tokens, 1),
        "batched": lambda: theirs(model, asked, tokens, batch_size),
        "ours": lambda: ours(model, asked, {"max_tokens": tokens}, batch_size),
        "ours, sampled": lambda: ours(model, asked, sampled(tokens), batch_size),
    }
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(rounds + 1):
        texts = {}
        for name, run in rows.items():
            start = time.perf_counter()
            texts[name] = run()
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - start)
    if different := [name for name in ("batched", "ours") if texts[name] != texts["one by one"]]:
        sys.exit(f"the greedy texts of {' and '.join(different)} are not those of one by one")
    tell(found, seconds, prompts * tokens, f"{prompts} prompts of {lengths(asked)} tokens, {tokens} new, {batch_size=}")
    if json_out:
        json_out.write_text(json.dumps(seconds))


def random_prompts(shape: Shape, count: int, tokens: int) -> list[np.ndarray]:
    """Random ids, (n,) int64 each, of lengths between an eighth of a row and what leaves room for the text."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    most = shape.seq_len - tokens
    return [rng.integers(2, shape.vocabulary, size=n) for n in rng.integers(shape.seq_len // 8, most, size=count)]


def lengths(prompts: list[np.ndarray]) -> str:
    """Shortest and longest prompt."""
    return f"{min(map(len, prompts))} to {max(map(len, prompts))}"


def without_end(model: Any) -> Any:
    """Give END no probability, so that all texts are equally long, and larger weights, so that no two tokens tie."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(4 if weight.dim() > 1 and "embed" not in name else 1)
    forward = model.forward

    def bounded(*args: Any, **options: Any) -> Any:
        output = forward(*args, **options)
        output.logits[..., END] = -torch.inf
        return output

    bounded.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    model.forward = bounded
    return model


def theirs(model: Any, prompts: list[np.ndarray], tokens: int, batch_size: int) -> Texts:
    """Texts of transformers."""
    import torch

    texts = []
    for first in range(0, len(prompts), batch_size):
        batch = prompts[first : first + batch_size]
        width = max(map(len, batch))
        ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt.tolist() for prompt in batch])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch])
        output = model.generate(
            ids, attention_mask=mask, do_sample=False, max_new_tokens=tokens, eos_token_id=END, pad_token_id=PAD
        )
        texts += [tuple(row[width:]) for row in output.tolist()]
    return texts


class Numbers:
    """Decodes each id to its number, as a tokenizer decodes it to a text."""

    begin, end, pad = END, END, PAD
    special: dict[str, int] = {}  # noqa: RUF012
    backend = SimpleNamespace(token_to_id=lambda name: None)  # no byte tokens

    def decode(self, ids: list[int]) -> str:
        """Text of ids."""
        return " ".join(map(str, ids))


def sampled(tokens: int) -> dict[str, Any]:
    """Settings that use every part of sampling."""
    limits = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "repetition_penalty": 1.1}
    return {"max_tokens": tokens, **limits, "stop": ("no number",)}


def ours(model: Any, prompts: list[np.ndarray], settings: dict[str, Any], batch_size: int) -> Texts:
    """Texts of our engine."""
    from codex_ml.inference.generation import Prompt, generate
    from codex_ml.inference.sampling import Sampling

    asked = [Prompt(ids, str(number)) for number, ids in enumerate(prompts)]
    tokenizer: Any = Numbers()
    found = generate(model, tokenizer, asked, Sampling(**settings), seed=SEED, batch_size=batch_size)
    return [text.tokens for text in found]


def tell(shape: Shape, seconds: dict[str, list[float]], tokens: int, settings: str) -> None:
    """Print tokens per second, and how much faster each row is than one prompt at a time."""
    print(f"{cpu_name()}; {shape.parameters:,} parameters; {settings}")
    base = statistics.median(seconds["one by one"])
    for name, times in seconds.items():
        middle = statistics.median(times)
        spread = f"{min(times):.2f} to {max(times):.2f} s"
        print(f"{name:14} {tokens / middle:8.0f} tokens/s  {base / middle:5.1f} x  ({spread})")


if __name__ == "__main__":
    typer.run(main)
