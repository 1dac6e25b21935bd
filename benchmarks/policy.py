"""Speed, memory, recall per rule and per form, and false hits of the text policy; detect-secrets takes turns with it.

    python benchmarks/policy.py                                     # our policy alone, on the whole sample
    python benchmarks/policy.py --peer-python ../peer/bin/python    # both, on 2 MB (detect-secrets needs 10 s for it)

detect-secrets runs in an environment of its own and is never imported here. Both scan the same files in the same order,
batch by batch, each in one process. Times are CPU seconds of the scan alone, without the reading of the wheels.

False hits are findings of the rules for secrets in public code: the standard library, this environment and the sample.
A few are real secrets (a token that a package publishes); all are counted. Findings of personal data are counted
separately, because authors write their addresses there.

The rows of policy_forms.py join names and values as files do. A row counts for us if no five characters of its value
stay, and for detect-secrets if it reports a line. Values are random: of 16 characters 0.7 % look like words.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from policy_forms import Row, rows

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from codex_ml.policy.filters import TextFilter  # noqa: E402
from codex_ml.policy.redact import PLACEHOLDER, redact  # noqa: E402
from codex_ml.policy.rules import Rule, load_policy  # noqa: E402
from codex_ml.policy.scan import Scanner  # noqa: E402
from codex_ml.safety_audit.planted import planted  # noqa: E402

BATCH = 250_000  # characters, after which the other scanner takes its turn

# Reads one folder per line; answers with seconds and the reported lines of each file. Default plugins and filters.
PEER = """
import json, os, sys, time
from importlib.metadata import version
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import default_settings, get_settings
with default_settings():
    settings = get_settings()
    print(json.dumps({"version": version("detect-secrets"), "plugins": sorted(settings.plugins),
                      "filters": sorted(settings.filters)}), flush=True)
    for folder in sys.stdin:
        files = sorted(os.path.join(folder.strip(), name) for name in os.listdir(folder.strip()))
        start = time.process_time()
        found = {os.path.basename(f): sorted({s.line_number for s in scan_file(f)}) for f in files}
        print(json.dumps({"seconds": time.process_time() - start, "found": found}), flush=True)
"""


def documents(sample: Path, limit: int) -> list[str]:
    """Return Python files from all wheels of the sample, about `limit` characters together (0: all files)."""
    texts = []
    for wheel in sorted(sample.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith((".py", ".pyi"))]
            texts += [archive.read(name).decode("utf-8", "replace") for name in names]
    if not texts:
        raise typer.BadParameter(f"{sample} has no wheels; run `dvc repro fetch`, or name a folder with --sample")
    total = sum(map(len, texts))
    step = max(1, total // limit) if limit else 1
    return texts[::step]


def batches(texts: list[str]) -> list[list[str]]:
    """Group the texts into batches of about `BATCH` characters."""
    groups: list[list[str]] = [[]]
    size = 0
    for text in texts:
        if size > BATCH:
            groups.append([])
            size = 0
        groups[-1].append(text)
        size += len(text)
    return groups


class Peer:
    """detect-secrets in its own process."""

    def __init__(self, python: Path) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([python, "-c", PEER], stdin=pipe, stdout=pipe, text=True)
        self.settings = self._answer()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"detect-secrets ended with status {self.process.wait()}; is it installed there?")
        return json.loads(line)

    def scan(self, texts: list[str]) -> tuple[float, list[list[int]]]:
        """Return CPU seconds, and the reported lines of each text."""
        with tempfile.TemporaryDirectory() as folder:
            for number, text in enumerate(texts):
                Path(folder, f"{number:06d}.py").write_text(text, encoding="utf-8", newline="")
            self.process.stdin.write(folder + "\n")
            self.process.stdin.flush()
            answer = self._answer()
        return answer["seconds"], [answer["found"][f"{number:06d}.py"] for number in range(len(texts))]


def recall(scanner: Scanner, peer: Peer | None, *, seed: int, instances: int) -> None:
    """Print the share of planted secrets that are reported: ours by span, detect-secrets by line."""
    kinds = {rule.id for rule in scanner.policy.rules if rule.kind == "secret"}
    cases = list(planted(seed, instances, rules=kinds, providers=scanner.policy.providers))
    ours = [any(text[f.start : f.end] == value for f in scanner.scan(text)) for _, text, value in cases]
    print(f"recall on {len(cases)} planted secrets of {len(kinds)} rules: ours {sum(ours) / len(cases):.3f}")
    print_lowest("rules", [rule for rule, _, _ in cases], ours)
    if peer:
        _, lines = peer.scan([text for _, text, _ in cases])
        theirs = []
        for (_, text, value), reported in zip(cases, lines, strict=True):
            start = text.index(value)
            first = text.count("\n", 0, start) + 1
            theirs.append(any(first <= line <= first + value.count("\n") for line in reported))
        print(f"  detect-secrets {sum(theirs) / len(cases):.3f} (reports a line of the value)")
        print_lowest("rules", [rule for rule, _, _ in cases], theirs)


def recall_of_forms(scanner: Scanner, peer: Peer | None, *, seed: int) -> None:
    """Print the share of rows of policy_forms.py whose value goes; detect-secrets gets each fifth name of a form."""
    cases = list(rows(seed, every=5 if peer else 1))
    ours = [goes(row, redact(row.text, scanner.scan(row.text), b"a key")) for row in cases]
    forms = [row.form for row in cases]
    print(f"recall on {len(cases)} rows of {len(set(forms))} forms: ours {sum(ours) / len(cases):.4f}")
    print_lowest("forms", forms, ours)
    if peer:
        theirs = []
        for start in range(0, len(cases), 500):
            _, lines = peer.scan([row.text for row in cases[start : start + 500]])
            theirs += [bool(reported) for reported in lines]
        print(f"  detect-secrets {sum(theirs) / len(cases):.4f} (reports any line)")
        print_lowest("forms", forms, theirs)


def goes(row: Row, cleaned: str) -> bool:
    """Whether no five characters of the value are left."""
    left = PLACEHOLDER.sub("", cleaned)
    return not any(part[at : at + 5] in left for part in row.parts for at in range(len(part) - 4))


def print_lowest(what: str, names: list[str], found: list[bool]) -> None:
    """Print how many names have a recall of 1, and the ten with the lowest."""
    hits, total = Counter(name for name, one in zip(names, found, strict=True) if one), Counter(names)
    shares = sorted((hits[name] / total[name], name) for name in total)
    lowest = ", ".join(f"{name} {share:.2f}" for share, name in shares[:10] if share < 1)
    print(f"  {sum(share == 1 for share, _ in shares)} of {len(shares)} {what} in full; the lowest: {lowest or 'none'}")


def text_files(root: Path) -> Iterator[str]:
    """Yield every text file below `root`, without site-packages if `root` is the standard library."""
    for file in sorted(root.rglob("*")):
        if file.is_file() and (root.name == "site-packages" or "site-packages" not in file.parts):
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            if "\0" not in text:
                yield text


def false_hits(scanner: Scanner, name: str, texts: Iterable[str]) -> None:
    """Print the findings per MB of the rules for secrets, and the number of findings of each other rule."""
    kinds = {rule.id: rule.kind for rule in scanner.policy.rules}
    size, found = 0, Counter()
    for text in texts:
        size += len(text.encode("utf-8", "replace"))
        found.update(finding.rule for finding in scanner.scan(text))
    secrets = {rule: number for rule, number in sorted(found.items()) if kinds[rule] == "secret"}
    others = {rule: number for rule, number in sorted(found.items()) if kinds[rule] != "secret"}
    per_megabyte = sum(secrets.values()) / size * 1e6
    print(f"{name}: {size / 1e6:.1f} MB, secrets {per_megabyte:.3f} per MB {secrets}; others {others}")


def growth(screen: TextFilter, rules: Iterable[Rule], *, size: int = 64_000) -> None:
    """Print how the time of a scan and of the input filter grows where a text is four times as long.

    The texts are hostile: a literal of each rule, and then one character or pair of characters many times. 4 is linear
    and 16 is quadratic. A text of which the longer form takes less than 0.1 s is not measured.
    """
    worst = []
    units = ("a", "1", "Zq9x", " ", "\n", "a ", "-", "\\", "'\"", "=", "&a", "a@", "<", "41 ", "\u200b", "&#", "dG9r")
    starts = {rule.literals[0] if rule.literals else "12345678" for rule in rules} | {""}
    for start in sorted(starts):
        for unit in (*units, f"{start} "):
            for name, read in (("scan", screen.values_in_output), ("input", screen.screen_input)):
                if name == "input" and start:
                    continue
                seconds = []
                for count in (4 * size, size):
                    text = start + (unit * (count // len(unit)))
                    begin = time.process_time()
                    read(text)
                    seconds.append(time.process_time() - begin)
                    if seconds[0] < 0.1:
                        break
                else:
                    worst.append((seconds[0] / seconds[1], name, start, unit, seconds[0]))
    print(f"growth from {size} to {4 * size} characters, {len(worst)} hostile texts; the largest ratios:")
    for ratio, name, start, unit, longer in sorted(worst, reverse=True)[:5]:
        print(f"  {ratio:.1f} {name} of {start!r} and {unit!r} repeated, {longer:.2f} s")


def main(
    sample: Annotated[Path, typer.Option(help="Folder of wheels")] = ROOT / "data/raw/sample",
    policy: Annotated[Path, typer.Option(help="Policy file")] = ROOT / "data/policy.yaml",
    peer_python: Annotated[Path | None, typer.Option(help="Python of an environment with detect-secrets")] = None,
    megabytes: Annotated[float, typer.Option(help="MB of the sample; 0: 2 with --peer-python, else all")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="Number of scans; the fastest counts")] = 3,
    seed: int = 0,
    instances: Annotated[int, typer.Option(min=1, help="Planted secrets per rule")] = 30,
    hostile: Annotated[bool, typer.Option(help="Also measure how the time grows on hostile texts")] = True,
    precision: Annotated[bool, typer.Option(help="Also count false hits in public code, 400 MB")] = True,
) -> None:
    """Print MB/s on one core, peak memory, findings, recall, growth on hostile texts, and false hits."""
    scanner = Scanner(load_policy(policy))
    peer = Peer(peer_python) if peer_python else None
    if peer:
        print(f"detect-secrets {peer.settings['version']}: plugins {', '.join(peer.settings['plugins'])}")
        print(f"  filters {', '.join(peer.settings['filters'])}")
    groups = batches(documents(sample, int((megabytes or (2 if peer else 0)) * 1e6)))
    size = sum(len(text.encode("utf-8", "replace")) for group in groups for text in group)
    ours, theirs, found, reported = [], [], Counter(), 0
    for number in range(rounds):
        ours.append(0.0)
        theirs.append(0.0)
        for group in groups:
            start = time.process_time()
            findings = [finding for text in group for finding in scanner.scan(text)]
            ours[-1] += time.process_time() - start
            if not number:
                found.update(finding.rule for finding in findings)
            if peer and not number:  # once: its times vary by 3 %, and one round takes as long as 40 of ours
                seconds, lines = peer.scan(group)
                theirs[0] += seconds
                reported += sum(map(len, lines))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{size / 1e6:.1f} MB of Python in {sum(map(len, groups))} files, {len(scanner.policy.rules)} rules, one core"
    )
    print(f"ours {size / min(ours) / 1e6:.1f} MB/s, peak {memory:.0f} MiB, findings {dict(found)}")
    if peer:
        print(f"detect-secrets {size / theirs[0] / 1e6:.2f} MB/s, {reported} lines reported")
        print(f"ratio {theirs[0] / min(ours):.0f} (slowest of our rounds: {theirs[0] / max(ours):.0f})")
    recall(scanner, peer, seed=seed, instances=instances)
    recall_of_forms(scanner, peer, seed=seed)
    if hostile:
        growth(TextFilter(scanner.policy, b"a key", scanner=scanner), scanner.policy.rules)
    if precision:
        false_hits(scanner, "standard library", text_files(Path(sysconfig.get_path("stdlib"))))
        false_hits(scanner, "site-packages", text_files(Path(sysconfig.get_path("purelib"))))
        false_hits(scanner, "sample", documents(sample, 0))


if __name__ == "__main__":
    typer.run(main)
