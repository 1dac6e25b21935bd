"""A model trained on chats talks in plain transformers: the same ids, an end of its turn, adapters that find their base."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from workspace import Workspace, make_workspace

PARAMS = """\
seed: 3
fetch: {sample: false}
ingest: {sources: [{kind: jsonl, path: data/raw/chats.jsonl}]}
split: {val: 0.1, test: 0.1, licences: [MIT], ledger: false}
tokenizer: {vocab_size: 330, chat_template: chatml}
pack: {seq_len: 512, too_long: fail}
model: {hidden_size: 48, intermediate_size: 96, layers: 2, heads: 2, max_positions: 512}
train:
  lr: 2e-3
  max_steps: 150
  warmup_steps: 4
  micro_batch_size: 4
  accumulation: 1
  eval_every: 150
  checkpoint_every: 150
  threads: 1
  compile: "off"
evaluate: {bootstrap: 100, completions: {documents: 8, max_tokens: 16}}
safety_audit: {windows: 20, prefix_tokens: 12, suffix_tokens: 8, samples: 4, sample_tokens: 16}
report: {}
runtime: {device: cpu}
"""
ANSWER = "Forty-two."
CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"word": "tea"}}}
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]

# In plain transformers, on the folder only: ids of every train record beside those that pack wrote, and an answer.
LOADED = """
import json, sys
import numpy as np
import pyarrow.parquet as pq
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("models/model")
model = AutoModelForCausalLM.from_pretrained("models/model")
about = json.load(open("data/packed/pack.json"))
stream, starts = np.fromfile("data/packed/train.bin", about["dtype"]), np.fromfile("data/packed/train.starts", "<u8")
rows = pq.read_table("data/splits/train.parquet", columns=["messages", "tools"]).to_pylist()
differing = []
for number, row in enumerate(rows):
    messages, tools = (json.loads(row[key]) if row[key] else None for key in ("messages", "tools"))
    ids = tokenizer.apply_chat_template(messages, tools=tools, return_dict=False)
    if ids != stream[starts[number] + 1 : starts[number + 1]].tolist():
        differing.append(row)
asked = tokenizer.apply_chat_template([{"role": "user", "content": "What is it?"}], add_generation_prompt=True, return_tensors="pt")
said = model.generate(**asked, max_new_tokens=40, do_sample=False)[0, asked["input_ids"].shape[1] :].tolist()
configs = [model.config.eos_token_id, model.generation_config.eos_token_id]
ends = tokenizer.convert_tokens_to_ids([tokenizer.eos_token, "<|im_end|>"])
print(json.dumps([len(rows), differing, tokenizer.decode(said), configs, ends, "codex_ml" in sys.modules]))
"""
ADAPTED = """
import json
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained("models/model/adapter")
print(json.dumps([json.load(open("models/model/adapter/adapter_config.json"))["base_model_name_or_path"], type(model).__name__]))
"""


def chats() -> str:
    """Forty records that agree in the answer only, of all shapes: tools, null, parts, special tokens, a system message."""
    rng = random.Random(1)

    def words() -> str:
        return " ".join("".join(rng.choices("aeioulnrst", k=5)) for _ in range(12))

    answer = {"role": "assistant", "content": ANSWER}
    records = []
    for number in range(40):
        messages = [{"role": "user", "content": words()}, answer]
        record = {"id": f"r{number}", "licence": "MIT", "messages": messages}
        if number % 5 == 1:
            called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
            record |= {"tools": TOOLS, "messages": [messages[0], called, {"role": "tool", "content": words()}, answer]}
        if number % 5 == 2:
            messages[0]["content"] = [{"type": "text", "text": words()}, {"type": "text", "text": words()}]
        if number % 5 == 3:
            messages.insert(0, {"role": "system", "content": words()})
        records.append(record)
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace after a training from scratch on the chats."""
    workspace = make_workspace(tmp_path_factory.mktemp("chats"))
    workspace.extra["HF_HUB_OFFLINE"] = "1"
    (workspace.root / "data/raw").mkdir()
    (workspace.root / "data/raw/chats.jsonl").write_text(chats(), encoding="utf-8")
    (workspace.root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    run(workspace, "fetch", "ingest", "split", "tokenizer", "pack", "train")
    return workspace


@pytest.mark.slow
def test_the_saved_folder_chats_in_plain_transformers(taught: Workspace) -> None:
    count, differing, said, configs, ends, ours = json.loads(printed(taught, LOADED)[-1])
    assert (differing, ours) == ([], False) and count > 25
    assert said == f"{ANSWER}<|im_end|>"  # and no token more: generation ended
    assert configs == [ends, ends]


@pytest.mark.slow
def test_an_adapter_on_it_chats_and_finds_its_base(taught: Workspace, tmp_path: Path) -> None:
    """The same of adapters and of local tokenizers alone: tests/train/model, tests/tokenizer, tests/tokens."""
    workspace = taught.copy(tmp_path / "adapted")
    (workspace.root / "models/base").mkdir(exist_ok=True)
    (workspace.root / "models/model").rename(workspace.root / "models/base/first")
    base = "{path: models/base/first, lora: {rank: 2, alpha: 4, targets: [q_proj]}}"
    local = PARAMS.replace("{vocab_size: 330, chat_template: chatml}", "{kind: local, path: models/base/first}")
    local = local.replace(next(line for line in PARAMS.splitlines() if line.startswith("model:")), f"model: {base}")
    (workspace.root / "params.yaml").write_text(
        local.replace("max_steps: 150", "max_steps: 5").replace("lr: 2e-3", "lr: 1e-6"), encoding="utf-8"
    )
    run(workspace, "tokenizer", "pack", "train")
    loaded, adapted = printed(workspace, LOADED + ADAPTED)[-2:]
    _, differing, said, configs, ends, _ = json.loads(loaded)
    assert (differing, said, configs) == ([], f"{ANSWER}<|im_end|>", [ends, ends])
    assert json.loads(adapted) == ["models/base/first", "PeftModelForCausalLM"]


def run(workspace: Workspace, *stages: str) -> None:
    for stage in stages:
        workspace.run("python", f"stages/{stage}.py")


def printed(workspace: Workspace, code: str) -> list[str]:
    return workspace.run("python", "-c", code).stdout.splitlines()
