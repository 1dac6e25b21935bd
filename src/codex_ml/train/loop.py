"""The training loop: one for pre-training, continued training, fine-tuning and adapters, on one device or many.

Everything that decides the next step is in `Run`. The order of the rows is a pure function of the seed and the step. So
a resumed run sees the same rows as an uninterrupted one, with any number of processes.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.progress import duration, progress
from codex_ml.core.side_note import note_resolved, run_tags
from codex_ml.train import checkpoint
from codex_ml.train.monitor import machine_samples, monitor
from codex_ml.train.recipe import Recipe, RunFolders, TrainingResult
from codex_ml.train.resume import resume, save
from codex_ml.train.run import Run, prepare_run
from codex_ml.train.scratch import note_run
from codex_ml.train.step import optimizer_step
from codex_ml.train.stop_signals import end_now, waiting, watch_signals
from codex_ml.train.throughput import Throughput
from codex_ml.train.timings import Timings
from codex_ml.train.trackers import open_trackers
from codex_ml.train.tracking import Points, Sink, Tracker
from codex_ml.train.validation import measure_again, validate

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("codex_ml")
STUCK_SECONDS = 5.0  # a process that was interrupted twice must return to Python within this time


class Interrupted(CheckFailed):
    """A signal asked the run to stop; it saved a checkpoint and can be resumed."""

    interrupted = True


def train_model(model: nn.Module, recipe: Recipe, folders: RunFolders, *, record: dict[str, Any]) -> TrainingResult:
    """Train to `max_steps`, from the newest checkpoint of the run if there is one; leave the best weights in `model`.

    Args:
        model: what `make_trainable` returned.
        record: the stage's record: the trackers show its parameters, and the checkpoints carry its environment.

    Raises:
        UserError: when there is nothing to train on, or memory is too small for a single row.
        CheckFailed: when a loss or a gradient is not finite; the update is not applied and a checkpoint is saved.
        Interrupted: after SIGTERM or SIGINT; a checkpoint is saved.
    """
    for name, stream in (("train", recipe.rows), ("val", recipe.val_rows)):
        if len(stream) == 0:
            raise UserError(f"the packed {name} stream has no row; add documents or lower pack.seq_len")
    with waiting():
        run = prepare_run(model, recipe, scratch=folders.scratch)
        run.environment = record["environment"]
        resume(run)
        if run.outdated:
            measure_again(run)
    name = folders.scratch.name
    note_resolved(recipe=name, attention=getattr(model.config, "_attn_implementation", None))
    extra: tuple[Sink, ...] = ()
    if run.writes:
        tags = run_tags(recipe.seed)
        note_run(folders.scratch, tags)
        extra = open_trackers(recipe.runtime, folders.trackers, name, record["params"], tags=tags)
    if recipe.hardware.compile and not run.finished:
        log.info("train: torch.compile builds kernels in the first step, which may take minutes; the rates exclude it")
    with _tracking(run, folders, extra) as tracker, _stop_requested(run) as stop:
        _steps(run, tracker, stop)
    run.accelerator.unwrap_model(run.model, keep_fp32_wrapper=False)  # otherwise it keeps computing in bf16
    if run.best.entries:
        checkpoint.load_weights(model, checkpoint.read_tensors(run.best.files()[0]))
    with waiting():
        run.accelerator.wait_for_everyone()  # the first process removes the best weights; all must have read them
        run.accelerator.end_training()
    return TrainingResult(
        best=dict(run.best.entries[0]) if run.best.entries else {},
        details={
            "stopped_early": run.stopped_early,
            "skipped_steps": run.skipped,
            "micro_batch_size": run.micro_batch_size,
            "processes": run.processes,
            "continued": run.continued,
        },
    )


@contextmanager
def _tracking(run: Run, folders: RunFolders, extra: Sequence[Sink]) -> Iterator[Points]:
    """Open curves, trackers and monitor in the one process that writes."""
    if run.history is None:
        yield Points()
        return
    runtime = run.recipe.runtime
    events, system = (Timings(folders.logs / f"{name}.ndjson", runtime) for name in ("events", "system"))
    tracker = Tracker(folders.curves, events, run.history.points(), extra=extra)
    try:
        source = partial(machine_samples, nvml=runtime.nvml)
        with monitor(system, seconds=runtime.monitor_seconds, observe=tracker.observe, source=source):
            yield tracker
    finally:
        best = run.best.entries[0] if run.best.entries else {}
        summary = {"best_step": best["step"], "best_val_loss": best["val/loss"]} if best else {}
        tracker.finish(summary, complete=run.finished)


def _steps(run: Run, tracker: Points, stop: Callable[[], int]) -> None:
    train, saved_at = run.train, run.step
    started, throughput, first = time.monotonic(), Throughput(run), run.step + 1
    style = run.recipe.runtime.progress if run.writes else "off"

    def note(point: dict[str, Any]) -> None:
        if run.history is not None:
            run.history.append(point)
        tracker.log(point)

    with progress("train", train.max_steps, "steps", style=style, done=run.step, first_apart=True) as advance:
        while not run.finished:
            try:
                point = optimizer_step(run)
            except CheckFailed:
                if run.step > saved_at:
                    save(run)
                raise
            run.step += 1
            if run.step == first:  # the first step includes warm-up and compilation
                throughput.restart(run.step)
            last = run.step == train.max_steps
            if run.step % train.log_every == 0 or last:
                note({"step": run.step, **point})
                tracker.event(step=run.step, **throughput.since_last(run.step), **point)
            if run.step % train.eval_every == 0 or last:
                note({"step": run.step, **validate(run)})
            number = stop_signal(run, stop)
            if run.step % train.checkpoint_every == 0 or run.finished or number:
                save(run)
                saved_at = run.step
            advance(1)
            if number and not run.finished:
                raise Interrupted(
                    f"{signal.Signals(number).name}: saved the checkpoint of step {run.step} of {train.max_steps}; "
                    "run the same command again to go on from there"
                )
    if run.stopped_early:
        log.info(
            "train: stopped early at step %d: %d validations without an improvement", run.step, run.patience.waited
        )
    places = (run.step - first + 1) * run.rows_a_step * run.rows.seq_len
    used = f"{run.trained_tokens / places:.1%} of the places in its rows" if places else "no step was left"
    log.info("train: %d trained tokens (%s), %s", run.trained_tokens, used, duration(time.monotonic() - started))


def stop_signal(run: Run, stop: Callable[[], int]) -> int:
    """Return the signal that any process received, or 0, so that all stop after the same step.

    Collective: every process must call it.
    """
    if run.accelerator.num_processes == 1:
        return stop()
    import torch

    number = torch.tensor(stop(), device=run.accelerator.device)
    return int(run.accelerator.gather(number).max())


@contextmanager
def _stop_requested(run: Run) -> Iterator[Callable[[], int]]:
    """SIGTERM and SIGINT ask the loop to stop after the step; a second SIGINT stops at once.

    A second SIGTERM does not: SLURM and systemd signal each process of a job, and the launcher forwards its own signal
    too. A process that waits in C++ for a lost process never runs its Python handler, so a thread ends it
    STUCK_SECONDS after the second SIGINT.

    While the first step builds kernels, there is nothing to save, and a signal stops at once. Ctrl-C ends the C++
    compiler too: torch then takes the CPU for one without vector instructions, or reports that the compiler failed.
    """
    received, over, first, compiles = 0, threading.Event(), run.step, run.recipe.hardware.compile
    seen: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal received
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received = received or number
        if compiles and run.step == first:
            _stop_now(number)

    def end_if_stuck(number: int) -> None:
        seen.append(number)
        if len(seen) > 1 and number == signal.SIGINT and not over.wait(STUCK_SECONDS):
            end_now(number)

    old = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with watch_signals(end_if_stuck):
            try:
                yield lambda: received
            finally:
                over.set()
    except (UserError, CheckFailed):
        raise
    except Exception:
        if received and compiles:  # of kernels for validation, for example
            _stop_now(received)
        raise
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _stop_now(number: int) -> NoReturn:
    """Raise what a signal raises outside the loop."""
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
