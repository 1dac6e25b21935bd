"""docs/own_data.md and docs/smollm2.md as a new user follows them: each command and each parameter as printed."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from workspace import PARAMS, Workspace, make_workspace

from codex_ml.yaml import parse_yaml

SMALL = {"val": 0.2, "test": 0.2}
WORDS = [
    "the",
    "a",
    "customer",
    "printer",
    "order",
    "was",
    "broken",
    "late",
    "new",
    "invoice",
    "again",
    "please",
    "send",
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, section by section."""
    return base | {
        key: merged(base.get(key) or {}, value) if isinstance(value, dict) else value for key, value in over.items()
    }


def token(dice: random.Random) -> str:
    """A token of GitHub's documented form; made here, so that no file holds one."""
    return "gh" + "p_" + "".join(dice.choices("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=36))


@pytest.fixture
def clone(tmp_path: Path) -> Workspace:
    """A clone in which nothing has run, the tools in PATH as after `source .venv/bin/activate`, and the user's data."""
    workspace = make_workspace(tmp_path)
    tools, home = tmp_path / "bin", tmp_path / "home"
    tools.mkdir()
    home.mkdir()
    command = f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; sys.path.insert(0, \'src\'); from codex_ml.cli import main; main()" "$@"\n'
    for name, text in {"codex-ml": command, "dvc": f'#!/bin/sh\nexec "{sys.executable}" -m dvc "$@"\n'}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    workspace.extra["HOME"] = str(home)
    workspace.extra["PATH"] = f"{tools}:{workspace.environment['PATH']}"
    (home / ".gitconfig").write_text("[user]\n name = T\n email = t@example.org\n")
    return workspace


def test_the_first_hour_with_private_data(clone: Workspace, tmp_path: Path, repository: Path) -> None:
    page = repository / "docs/own_data.md"
    dice = random.Random(1)
    tickets = [
        {"text": f"Ticket {i}: " + " ".join(dice.choices(WORDS, k=60)) + f" my token is {token(dice)}"}
        for i in range(150)
    ]
    (tmp_path / "home/tickets.jsonl").write_text("".join(json.dumps(t) + "\n" for t in tickets), encoding="utf-8")
    [settings] = blocks(page, "yaml")
    tiny = merged(parse_yaml(PARAMS, "tiny"), parse_yaml(settings, page.name))
    tiny["split"] |= SMALL
    said = ""
    for number, commands in enumerate(blocks(page, "sh")):
        if "codex-ml check" in commands:
            (clone.root / "params.yaml").write_text(json.dumps(tiny), encoding="utf-8")
        script = commands.replace("/mnt/team/dvc", f"'{tmp_path}/team'")
        done = clone.run("sh", "-ec", script)
        said += done.stdout + done.stderr
        assert "Traceback" not in said, number
    assert "links hold" in said
    assert clone.run("git", "status", "--porcelain").stdout == ""  # the page names all that is to be committed
    assert clone.dvc("status").stdout.strip() == "Data and pipelines are up to date."

    history = clone.run("git", "log", "-p", "--all", "--text").stdout
    key = (clone.root / "data/redaction_key").read_text().strip()
    assert key not in history
    assert not re.search("ghp_[A-Za-z0-9]{20}", history)
    for part in ("train", "val", "test"):
        texts = pq.read_table(clone.root / f"data/splits/{part}.parquet").column("text").to_pylist()
        assert texts
        assert all("ghp_" not in text and "<SECRET:github-token:" in text for text in texts)
    training = json.loads((clone.root / "reports/split/manifest.json").read_text())
    assert training["policy"]["findings"] == {"github-token: redact": 150}

    colleague = Workspace(tmp_path / "colleague", clone.wheels, clone.extra)
    clone.run("git", "clone", "-q", ".", str(colleague.root))
    colleague.dvc("pull")
    assert (colleague.root / "data/raw/tickets.jsonl").read_bytes() == (tmp_path / "home/tickets.jsonl").read_bytes()
    assert (colleague.root / "data/redaction_key").read_text().strip() == key
    assert colleague.dvc("status").stdout.strip() == "Data and pipelines are up to date."
    assert "links hold" in colleague.run("codex-ml", "verify").stdout


def test_the_settings_of_the_fine_tuning_page_train_a_base(clone: Workspace, repository: Path) -> None:
    """On a Llama of one layer instead of SmolLM2; every other value is that of the page."""
    page = repository / "docs/smollm2.md"
    [settings] = blocks(page, "yaml")
    asked = parse_yaml(settings, page.name)
    gguf = asked["model"]["path"]
    assert asked["tokenizer"]["path"] == gguf == "models/base/smollm2.gguf"
    assert f"> {gguf}" in "".join(blocks(page, "sh"))  # the page says how to get this very file
    clone.run(sys.executable, "-c", MAKE_BASE, "models/base/tiny")
    for section in ("tokenizer", "model"):
        asked[section]["path"] = "models/base/tiny"
    tiny = merged(parse_yaml(PARAMS, "tiny"), asked)
    for name in ("hidden_size", "intermediate_size", "layers", "heads", "max_positions"):
        del tiny["model"][name]  # a base has its own
    del tiny["tokenizer"]["vocab_size"]
    tiny["train"]["max_steps"] = int(re.search(r"set `train.max_steps` to (\d+)", page.read_text(encoding="utf-8"))[1])
    (clone.root / "params.yaml").write_text(json.dumps(tiny), encoding="utf-8")
    clone.run("codex-ml", "check")
    clone.run("dvc", "repro", "evaluate")
    assert (clone.root / "models/model/adapter/adapter_config.json").is_file()
    assert asked["train"]["max_steps"] == 60


MAKE_BASE = """
import sys, torch
from pathlib import Path
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
torch.manual_seed(0)
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate([*letters, "<|endoftext|>"])}, []))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.add_special_tokens(["<|endoftext|>"])
PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(sys.argv[1])
config = LlamaConfig(vocab_size=257, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
    max_position_embeddings=256, bos_token_id=256, eos_token_id=256)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
"""
