"""Speed and memory of ingest and split, compared with the usual tools, which take turns within one run.

    python benchmarks/data.py speed --megabytes 100 --peer-python PATH
    python benchmarks/data.py memory --small 400 --large 4000
    python benchmarks/data.py serial --small 80 --large 320 --code .venv/lib/python3.11/site-packages

The other tools run in an environment of their own (pip install datatrove datasketch 'xxhash<4' pyarrow regex orjson
tokenizers). codex-ml does not install them. Their settings are in PEERS and are printed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from corpus import write  # noqa: E402
from measuring import Run, measure, workspace  # noqa: E402

app = typer.Typer(help=__doc__, no_args_is_help=True)

PARAMS = """\
ingest:
  sources: [{source}]
split: {{licences: [MIT], policy: {policy}, quality: {{max_line_length: null, max_mean_line_length: null}}}}
runtime: {{workers: {workers}, progress: "off"}}
"""
INVENTED = '{kind: jsonl, path: "data/raw/bench/*.jsonl"}'

PEERS = {
    "datatrove": "local executor, 2 workers; 14 buckets of 8 hashes (xxhash 64), 5-grams of regex words; "
    "all four steps",
    "datasketch": "MinHash 252 permutations, 5-grams of words, 42 bands of 6 in dictionaries, union-find; one process",
}


def corpus_workspace(root: Path, megabytes: int, *, policy: str, workers: int = 0) -> Path:
    """Make a copy of the repository's code with a corpus of invented text."""
    workspace(root, PARAMS.format(policy=policy, source=INVENTED, workers=workers))
    write(root / "data/raw/bench", megabytes)
    return root


def stage(root: Path, name: str) -> Run:
    """Run one stage script as DVC does."""
    return measure([sys.executable, f"stages/{name}.py"], root)


def peer(name: str, python: Path, root: Path, out: Path) -> Run:
    """Run another tool on the same files."""
    shutil.rmtree(out, ignore_errors=True)
    return measure([str(python), str(HERE / f"peer_{name}.py"), str(root / "data/raw/bench"), str(out)], root)


@app.command()
def speed(
    megabytes: Annotated[int, typer.Option(help="Size of the corpus, MB of text.")] = 100,
    rounds: Annotated[int, typer.Option(help="Rounds; medians are printed.")] = 3,
    peer_python: Annotated[Path | None, typer.Option(help="Python of an environment with the other tools.")] = None,
) -> None:
    """Measure MB/s of ingest, of split without and with policy, and of the other tools, in turns."""
    with TemporaryDirectory() as temporary:
        plain = corpus_workspace(Path(temporary) / "plain", megabytes, policy="off")
        policy = corpus_workspace(Path(temporary) / "policy", megabytes, policy="enforce")
        todo: dict[str, Callable[[], Run]] = {
            "ingest": lambda: stage(plain, "ingest"),
            "dedup + split": lambda: stage(plain, "split"),
            "ingest, policy corpus": lambda: stage(policy, "ingest"),
            "policy + dedup + split": lambda: stage(policy, "split"),
        }
        if peer_python:
            for name in PEERS:
                todo[name] = lambda name=name: peer(name, peer_python, plain, Path(temporary) / name)  # type: ignore[misc]
        runs: dict[str, list[Run]] = {name: [] for name in todo}
        for _ in range(rounds):
            for name, action in todo.items():
                runs[name].append(action())
        speeds = {name: megabytes / median(run.seconds for run in found) for name, found in runs.items()}
        for name, found in runs.items():
            print(f"{name:24s} {speeds[name]:7.1f} MB/s   peak {max(run.peak for run in found):6.0f} MiB")
        whole = 1 / (1 / speeds["ingest, policy corpus"] + 1 / speeds["policy + dedup + split"])
        print(f"{'ingest + split, whole':24s} {whole:7.1f} MB/s")
        for name, settings in PEERS.items():
            if name in speeds:
                print(f"{name}: {speeds['dedup + split'] / speeds[name]:.2f} times as fast ({settings})")


@app.command()
def memory(
    small: Annotated[int, typer.Option(help="Size of the small corpus, MB.")] = 400,
    large: Annotated[int, typer.Option(help="Size of the large corpus, MB.")] = 4000,
) -> None:
    """Compare the peak memory of ingest and split (policy on) on a small and on a large corpus."""
    peaks: dict[str, list[float]] = {"ingest": [], "split": []}
    for megabytes in (small, large):
        with TemporaryDirectory() as temporary:
            root = corpus_workspace(Path(temporary) / "workspace", megabytes, policy="enforce")
            for name, found in peaks.items():
                run = stage(root, name)
                found.append(run.peak)
                print(f"{name:8s} {megabytes:6d} MB: peak {run.peak:6.0f} MiB, {megabytes / run.seconds:6.1f} MB/s")
    for name, (one, many) in peaks.items():
        print(f"{name:8s} grows by {many - one:.0f} MiB")


@app.command()
def serial(
    small: Annotated[int, typer.Option(help="Size of the small corpus, MB.")] = 80,
    large: Annotated[int, typer.Option(help="Size of the large corpus, MB.")] = 320,
    workers: Annotated[list[int], typer.Option(help="Worker processes; give it several times.")] = [2, 4],  # noqa: B006
    code: Annotated[Path | None, typer.Option(help="Folder of Python files, such as a site-packages.")] = None,
) -> None:
    """Measure the CPU seconds of the main thread and of the first process, as shares of all CPU time (policy on).

    The main thread is the serial part. The other threads of the first process hash its input in parallel. Both sizes
    include the start of a stage; "growth" is the difference between the two sizes.
    """
    for count in workers:
        runs: dict[str, list[Run]] = {"ingest": [], "split": []}
        for megabytes in (small, large):
            with TemporaryDirectory() as temporary:
                root = corpus_workspace(Path(temporary) / "workspace", megabytes, policy="enforce", workers=count)
                for name, found in runs.items():
                    found.append(stage(root, name))
                    _print_share(f"{name}, {megabytes} MB, {count} workers", found[-1])
        for name, (one, many) in runs.items():
            growth = Run(0, many.cpu - one.cpu, many.parent - one.parent, main=many.main - one.main)
            _print_share(f"{name}, growth, {count} workers", growth)
        if code:
            with TemporaryDirectory() as temporary:
                source = '{kind: files, path: data/raw/code, glob: "**/*.py", licence: MIT}'
                root = workspace(
                    Path(temporary) / "workspace", PARAMS.format(policy="enforce", source=source, workers=count)
                )
                shutil.copytree(code, root / "data/raw/code", ignore_dangling_symlinks=True)
                for name in runs:
                    _print_share(f"{name}, {code.name}, {count} workers", stage(root, name))


def _print_share(what: str, run: Run) -> None:
    parts = (("main thread", run.main), ("first process", run.parent))
    shares = (f"{name} {used:6.2f} s = {100 * used / run.cpu:4.1f} %" for name, used in parts)
    print(f"{what:40s} CPU {run.cpu:7.2f} s  {'  '.join(shares)}")


if __name__ == "__main__":
    app()
