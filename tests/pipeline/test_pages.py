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

from codex_ml.core.yaml import parse_yaml

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
    command = f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; sys.path.insert(0, \'src\'); from codex_ml.cli.main import main; main()" "$@"\n'
    for name, text in {"codex-ml": command, "dvc": f'#!/bin/sh\nexec "{sys.executable}" -m dvc "$@"\n'}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    workspace.extra["HOME"] = str(home)
    workspace.extra["PATH"] = f"{tools}:{workspace.environment['PATH']}"
    (home / ".gitconfig").write_text("[user]\n name = T\n email = t@example.org\n")
    return workspace


@pytest.mark.slow
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
    del tiny["evaluate"]["code"]  # of the tests; without benchmarks, check refuses what has no effect
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


@pytest.mark.slow
def test_the_settings_of_the_fine_tuning_page_train_a_base(clone: Workspace, repository: Path) -> None:
    """On a Llama of one layer in the place of SmolLM2, a GGUF file too; every other value is that of the page."""
    page = repository / "docs/smollm2.md"
    [settings] = blocks(page, "yaml")
    asked = parse_yaml(settings, page.name)
    gguf = asked["model"]["path"]
    commands = "".join(blocks(page, "sh"))
    assert f"> {gguf}\n" in commands  # the page says how to get this very file
    clone.run(sys.executable, "-c", MAKE_BASE, gguf)
    clone.run("sh", "-ec", "\n".join(line for line in commands.splitlines() if line.startswith("dvc ")))
    tiny = merged(parse_yaml(PARAMS, "tiny"), asked)
    for name in ("hidden_size", "intermediate_size", "layers", "heads", "max_positions"):
        del tiny["model"][name]  # of the tests; params.yaml as it is shipped has null there
    del tiny["tokenizer"]["vocab_size"]
    tiny["train"]["max_steps"] = int(re.search(r"set `train.max_steps` to (\d+)", page.read_text(encoding="utf-8"))[1])
    (clone.root / "params.yaml").write_text(json.dumps(tiny), encoding="utf-8")
    clone.run("codex-ml", "check")
    clone.run("dvc", "repro", "evaluate")
    assert (clone.root / "models/model/adapter/adapter_config.json").is_file()
    assert asked["train"]["max_steps"] == 60


MAKE_BASE = """
import sys
import gguf, numpy
from tokenizers import pre_tokenizers
writer = gguf.GGUFWriter(sys.argv[1], "llama")
writer.add_context_length(256)
writer.add_embedding_length(16)
writer.add_block_count(1)
writer.add_feed_forward_length(32)
writer.add_head_count(2)
writer.add_head_count_kv(2)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_freq_base(10_000.0)
tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ee", "<|endoftext|>"]
writer.add_vocab_size(len(tokens))
writer.add_tokenizer_model("gpt2")
writer.add_token_list(tokens)
writer.add_token_types([1] * (len(tokens) - 1) + [3])
writer.add_token_merges(["e e"])
for role in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
    role(len(tokens) - 1)
random = numpy.random.default_rng(0)
shapes = {"token_embd": (len(tokens), 16), "output_norm": (16,), "blk.0.attn_norm": (16,), "blk.0.ffn_norm": (16,)}
shapes |= {f"blk.0.attn_{name}": (16, 16) for name in ("q", "k", "v", "output")}
shapes |= {"blk.0.ffn_gate": (32, 16), "blk.0.ffn_up": (32, 16), "blk.0.ffn_down": (16, 32)}
for name, shape in shapes.items():
    values = numpy.ones(shape) if len(shape) == 1 else random.normal(0, 0.02, shape)
    writer.add_tensor(f"{name}.weight", values.astype(numpy.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
"""
