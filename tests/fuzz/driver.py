"""Give our readers mutated files for some minutes, and list what was not a success or a refusal in one line.

Each kind has a process of its own, which may die; the kinds get equal shares of the time. The same seed gives the same
inputs. A failing input goes to .cache/fuzz with its seed and what happened.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .attempt import MEMORY, SECONDS, Fault, Tally, attempt, data_of
from .kinds import KINDS, kind_named

ROOT = Path(__file__).parents[2]
TURN = 2.0  # seconds per turn of a kind
STORE = ROOT / ".cache/fuzz"


@dataclass
class Worker:
    """The process that reads the inputs of one kind, and what came out so far.

    Attributes:
        seconds: time in which it read inputs.
        ended: inputs at which the process ended, where the kind is read in a limited child only.
    """

    name: str
    seed: int
    folder: Path
    tally: Tally = field(default_factory=Tally)
    number: int = 0
    seconds: float = 0.0
    ended: int = 0
    process: subprocess.Popen[bytes] | None = None

    def turn(self, seconds: float) -> None:
        """Read inputs for some seconds, and at least one."""
        process = self.process or self._start()
        assert process.stdin is not None
        begin = time.monotonic()
        process.stdin.write(f"{self.number} {seconds}\n".encode())
        process.stdin.flush()
        line = self._answer(seconds + 2 * SECONDS)
        self.seconds += time.monotonic() - begin
        if line:
            found = json.loads(line)
            tally = Tally(**{**found, "faults": [Fault(**fault) for fault in found["faults"]]})
            self.number += tally.done
            self.tally.add(tally)
            for fault in tally.faults:
                self._keep(fault)
            return
        self._died(process)

    def _died(self, process: subprocess.Popen[bytes]) -> None:
        """Count the inputs before the one at which the process ended as refused, because their answer is lost."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)  # its output ends before itself does
        self.close()
        last = int.from_bytes((self.folder / f"{self.name}.at").read_bytes()[:8], "little")
        code = process.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.tally.refused += last - self.number
        if code != -signal.SIGKILL and kind_named(self.name, Path(tempfile.mkdtemp(dir=self.folder))).ends:
            self.ended += 1
            self.tally.refused += 1
        else:
            fault = Fault(last, f"the process ended ({how})", "see the same input with --replay")
            self.tally.faults.append(fault)
            self._keep(fault)
        self.number = last + 1

    def _start(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.attempt",
            self.name,
            str(self.seed),
            str(self.folder / f"{self.name}.at"),
        ]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"},
        )
        if self._answer(180) != b"ready\n":
            sys.exit(f"error: the process for {self.name} did not start; try: {' '.join(command)}")
        return self.process

    def _answer(self, seconds: float) -> bytes:
        assert self.process is not None and self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            self.process.kill()
        return self.process.stdout.readline()

    def _keep(self, fault: Fault) -> None:
        STORE.mkdir(parents=True, exist_ok=True)
        kind = kind_named(self.name, Path(tempfile.mkdtemp(dir=self.folder)))
        stem = STORE / f"{self.name}-{self.seed}-{fault.number}"
        stem.with_suffix(".input").write_bytes(data_of(kind, self.name, self.seed, fault.number))
        stem.with_suffix(".txt").write_text(
            f"{fault.what}\n{fault.detail}\n", encoding="utf-8", errors="backslashreplace"
        )
        print(f"FAULT {self.name} {fault.number}: {fault.what}; {stem}.input", flush=True)

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def run(names: list[str], seed: int, *, seconds: float, mutations: int, jobs: int) -> list[Worker]:
    """Read mutated inputs until the time is over, or so many were read."""
    with tempfile.TemporaryDirectory(prefix="codex-ml-fuzz-") as scratch:
        workers = [Worker(name, seed, Path(scratch)) for name in names]
        waiting: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in workers:
            waiting.put(worker)
        end = time.monotonic() + seconds

        def work() -> None:
            while True:
                done = sum(worker.tally.done for worker in workers)
                left = end - time.monotonic()
                if left <= 0 or done >= mutations:
                    return
                worker = waiting.get()
                worker.turn(min(TURN, left))
                waiting.put(worker)

        broken: list[BaseException] = []

        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                broken.append(error)

        threads = [threading.Thread(target=guarded, daemon=True) for _ in range(min(jobs, len(names)))]
        for thread in threads:
            thread.start()
        shown = time.monotonic()
        while any(thread.is_alive() for thread in threads):
            threads[0].join(0.2)
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                done = sum(worker.tally.done for worker in workers)
                faults = sum(len(worker.tally.faults) for worker in workers)
                print(f"{done:,} inputs, {faults} faults, {max(end - shown, 0):.0f} s left", flush=True)
        for worker in workers:
            worker.close()
        if broken:
            raise broken[0]
    return workers


def table(workers: list[Worker]) -> str:
    """The results, one line per kind."""
    head = f"{'kind':14} {'inputs':>9} {'accepted':>9} {'refused':>9} {'ended':>6} {'faults':>6} {'per s':>7} {'MiB':>6} {'slowest s':>9}"
    lines = [head]
    for w in workers:
        t = w.tally
        rate = t.done / w.seconds if w.seconds else 0
        lines.append(
            f"{w.name:14} {t.done:9,} {t.accepted:9,} {t.refused:9,} {w.ended:6,} {len(t.faults):6,} {rate:7.0f} "
            f"{t.memory >> 20:6,} {t.slowest:9.1f}"
        )
    total = Tally()
    for w in workers:
        total.add(w.tally)
    ended = sum(w.ended for w in workers)
    lines.append(
        f"{'all':14} {total.done:9,} {total.accepted:9,} {total.refused:9,} {ended:6,} {len(total.faults):6,} {'':7} "
        f"{total.memory >> 20:6,} {total.slowest:9.1f}"
    )
    lines.append(
        f"ended: the limited child would have ended, which is one line; MiB: the most that one input added, of {MEMORY >> 20}"
    )
    return "\n".join(lines)


def replay(file: Path) -> int:
    """Read a stored input again in this process, and print what happens."""
    name, seed, number = file.stem.rsplit("-", 2)
    with tempfile.TemporaryDirectory(prefix="codex-ml-fuzz-") as scratch:
        seeds, folder = Path(scratch) / "seeds", Path(scratch) / "input"
        seeds.mkdir()
        folder.mkdir()
        tally = Tally()
        attempt(kind_named(name, seeds), file.read_bytes(), int(number), folder, tally)
    for fault in tally.faults:
        print(f"{name} of seed {seed}: {fault.what}\n{fault.detail}")
    if not tally.faults:
        print(f"{name} of seed {seed}: {'accepted' if tally.accepted else 'refused in one line'}")
    return len(tally.faults)


def main(arguments: list[str] | None = None) -> int:
    """Return 1 if there was a fault."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument(
        "--seed", type=int, default=None, help="of the mutations; without it a new one, which is printed"
    )
    parser.add_argument("--mutations", type=int, default=10**9, help="stop after so many inputs")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--replay", type=Path, help="a file of .cache/fuzz that is read once more")
    given = parser.parse_args(arguments)
    if given.replay:
        return min(replay(given.replay), 1)
    seed = int.from_bytes(os.urandom(4), "big") if given.seed is None else given.seed
    print(f"seed {seed}: {len(given.kinds)} kinds, {given.minutes:g} minutes", flush=True)
    workers = run(given.kinds, seed, seconds=60 * given.minutes, mutations=given.mutations, jobs=given.jobs)
    print(table(workers))
    if unread := [worker.name for worker in workers if not worker.tally.done]:
        print(f"the time was too short for: {', '.join(unread)}; give more minutes, or name them with --kinds")
    faults = sum(len(worker.tally.faults) for worker in workers)
    if faults:
        print(f"error: {faults} faults; the inputs are in {STORE.relative_to(ROOT)}", file=sys.stderr)
    return min(faults, 1)
