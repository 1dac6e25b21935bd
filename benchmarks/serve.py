"""Speed of `codex-ml serve`: requests together against one at a time in turns, 200 clients, and memory.

    python benchmarks/serve.py                             # models/model, 3 rounds
    python benchmarks/serve.py --model ../other --tokens 128

One server runs as a user starts it, with one thread: two wait for each other at the size of the sample's model. Each
round measures, one after the other:

    one at a time   one client, which sends the next request when it has the answer
    together        as many clients as --max-batch

Then 200 clients send --requests requests in all. Each request has a seed of its own, temperature 1, and no stop string;
tokens are those that the server counted in `usage`. Memory is that of the server after each part (RSS, Linux). It ends
with 1 where a request failed, or where together is less than three times as fast as one at a time.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import psutil
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measuring import ROOT, cpu_name

PROMPTS = ("def ", "import os\n", "class Reader:\n    def ", "for name in ", "# the number of ", "try:\n    ")
BOUND = 3.0
CLIENTS = 200


@dataclass
class Load:
    """What a part of the run gave.

    Attributes:
        latencies: seconds per request.
        tokens: new tokens of all requests.
        errors: requests without an answer of status 200.
    """

    latencies: list[float] = field(default_factory=list)
    tokens: int = 0
    errors: int = 0


def main(
    model: Annotated[str, typer.Option(help="Folder of a model, relative to the top folder.")] = "models/model",
    tokens: Annotated[int, typer.Option(min=1, help="New tokens per request.")] = 64,
    max_batch: Annotated[int, typer.Option(min=1)] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 3,
    alone: Annotated[int, typer.Option(min=1, help="Requests of one client per round.")] = 16,
    requests: Annotated[int, typer.Option(min=1, help="Requests of the 200 clients, in all.")] = 600,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
) -> None:
    """Measure; exit with 1 if a request failed or together is less than three times as fast."""
    speeds: dict[str, list[float]] = {"one at a time": [], "together": []}
    errors, memory = 0, list[float]()
    with server(model, max_batch) as (port, process):
        asyncio.run(load(port, clients=2, requests=8, tokens=tokens))  # warms up
        for _ in range(rounds):
            for name, clients, count in (("one at a time", 1, alone), ("together", max_batch, 4 * max_batch)):
                begun = time.perf_counter()
                found = asyncio.run(load(port, clients=clients, requests=count, tokens=tokens))
                speeds[name].append(found.tokens / (time.perf_counter() - begun))
                errors += found.errors
            memory.append(process.memory_info().rss / 2**20)
        begun = time.perf_counter()
        crowd = asyncio.run(load(port, clients=CLIENTS, requests=requests, tokens=tokens))
        crowd_speed = crowd.tokens / (time.perf_counter() - begun)
        memory.append(process.memory_info().rss / 2**20)
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    ratio = middle["together"] / middle["one at a time"]
    print(f"{cpu_name()}; {tokens} new tokens per request, --max-batch {max_batch}, {rounds} rounds in turns")
    for name, values in speeds.items():
        print(f"{name:14} {middle[name]:7.0f} tokens/s  ({min(values):.0f} to {max(values):.0f})")
    print(f"{'ratio':14} {ratio:7.1f} x")
    times = statistics.quantiles(crowd.latencies, n=100)
    spread = f"p50 {times[49]:.2f} s, p95 {times[94]:.2f} s"
    print(f"{CLIENTS} clients: {requests} requests, {crowd_speed:.0f} tokens/s, {spread}")
    print(f"errors: {errors + crowd.errors}; MiB after each part: {', '.join(f'{value:.0f}' for value in memory)}")
    if json_out:
        json_out.write_text(json.dumps({"speeds": speeds, "latencies": crowd.latencies, "memory": memory}))
    if errors + crowd.errors or ratio < BOUND:
        sys.exit(1)


@contextmanager
def server(model: str, max_batch: int) -> Iterator[tuple[int, psutil.Process]]:
    """Run the command until the block ends: (its port, its process)."""
    options = ["--model", model, "--port", "0", "--max-batch", str(max_batch), "--threads", "1"]
    command = [sys.executable, "-P", "-m", "codex_ml", "serve", *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        port = next(
            (int(found[1]) for line in lines if (found := re.search(r" at http://127\.0\.0\.1:(\d+)", line))), 0
        )
        if not port:
            sys.exit("the server did not start")
        drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)  # its log, line by line
        try:
            yield port, psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            drain.wait()


async def load(port: int, *, clients: int, requests: int, tokens: int) -> Load:
    """Send requests from so many clients at once, each on its own connection at a time."""
    found, numbers = Load(), iter(range(requests))

    async def client() -> None:
        for number in numbers:
            begun = time.perf_counter()
            try:
                new = await ask(port, number, tokens)
                found.tokens += new  # not in one line: it would read the sum before it waits
                found.latencies.append(time.perf_counter() - begun)
            except (OSError, ValueError, KeyError, IndexError):
                found.errors += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    return found


async def ask(port: int, number: int, tokens: int) -> int:
    """One request; return its number of new tokens."""
    asked = {"prompt": PROMPTS[number % len(PROMPTS)], "max_tokens": tokens, "seed": number}
    body = json.dumps(asked).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{head}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n".encode() + body)
        top, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    if top.split()[1] != b"200":
        raise ValueError(top.split(b"\r\n")[0].decode())
    return int(json.loads(answer)["usage"]["completion_tokens"])


if __name__ == "__main__":
    typer.run(main)
