"""tokenizer.add_pieces through the real stages: a foreign model reads more pieces, trains their rows, and loads anywhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from workspace import Workspace, make_workspace

BASE = "models/base/theirs"
PIECES = 30
PARAMS = f"""\
seed: 3
fetch: {{sample: false, benchmarks: false}}
ingest: {{sources: [{{kind: jsonl, path: data/raw/texts.jsonl}}]}}
split: {{val: 0.1, test: 0.1, licences: [MIT], ledger: false}}
tokenizer: {{kind: local, path: {BASE}, add_pieces: {PIECES}}}
pack: {{seq_len: 48, canaries: {{plant: never}}}}
model: {{path: {BASE}, lora: {{rank: 2, targets: [q_proj]}}}}
train:
  lr: 1e-2
  max_steps: 6
  warmup_steps: 1
  micro_batch_size: 2
  accumulation: 1
  eval_every: 3
  checkpoint_every: 3
  threads: 1
  compile: "off"
evaluate: {{bootstrap: 100, completions: {{documents: 4, max_tokens: 8}}}}
safety_audit: {{windows: 10, prefix_tokens: 8, suffix_tokens: 4, samples: 2, sample_tokens: 8}}
runtime: {{device: cpu}}
"""
# In plain transformers, on the folder only. In the stream each document follows an end and a begin token.
LOADED = """
import json, sys
import numpy as np
import pyarrow.parquet as pq
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer, base = AutoTokenizer.from_pretrained("models/model"), AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained("models/model")
about = json.load(open("data/packed/pack.json"))
stream, starts = np.fromfile("data/packed/train.bin", about["dtype"]), np.fromfile("data/packed/train.starts", "<u8")
texts = {part: pq.read_table(f"data/splits/{part}.parquet")["text"].to_pylist() for part in ("train", "val")}
ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts["train"]]
same = all(one == stream[starts[n] + 2 : starts[n + 1]].tolist() for n, one in enumerate(ids))
rates = {
    part: [
        round(sum(len(one(text, add_special_tokens=False)["input_ids"]) for text in texts[part])
              / sum(len(text.encode()) for text in texts[part]), 6)
        for one in (base, tokenizer)
    ]
    for part in texts
}
print(json.dumps({
    "same": same, "rates": rates, "sizes": [len(base), len(tokenizer), model.config.vocab_size, *model.lm_head.weight.shape],
    "ours": "codex_ml" in sys.modules,
    "lossless": all(tokenizer.decode(one) == text for one, text in zip(ids, texts["train"])),
}))
"""
# As docs/export.md says.
ADAPTED = """
import json
from peft import AutoPeftModelForCausalLM
for folder in ("adapter", "models/model/adapter"):
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    print(json.dumps([type(model).__name__, *model.get_input_embeddings().weight.shape]))
"""


def write_base(root: Path) -> None:
    """A Llama of one layer with an output head of its own, and a byte-level BPE that has read 20 merges of other text."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = root / BASE
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=276, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["once upon a time there was another king in another castle " * 3], trainer)
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=48, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def texts() -> str:
    records = []
    for number in range(60):
        parts = [
            f"the gardener waters {(number * 7 + k) % 53} carrots and {(number * k) % 31} potatoes" for k in range(4)
        ]
        records.append({"id": f"r{number}", "licence": "MIT", "text": f"note {number}: {'; '.join(parts)}."})
    return "".join(json.dumps(record) + "\n" for record in records)


def digest(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files)).hexdigest()


@pytest.mark.slow
def test_more_pieces_from_the_corpus_to_the_report(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    workspace.extra |= {"HF_HUB_OFFLINE": "1", "RAYON_NUM_THREADS": "1"}
    root = workspace.root
    write_base(root)
    (root / "data/raw").mkdir()
    (root / "data/raw/texts.jsonl").write_text(texts(), encoding="utf-8")
    (root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    run(workspace, "fetch", "ingest", "split", "tokenizer")
    once = digest(root / "models/tokenizer")
    workspace.extra["RAYON_NUM_THREADS"] = "4"
    run(workspace, "tokenizer", "pack", "train", "evaluate", "safety_audit", "report")
    assert digest(root / "models/tokenizer") == once

    loaded = json.loads(workspace.run("python", "-c", LOADED, BASE).stdout.splitlines()[-1])
    assert (loaded["same"], loaded["lossless"], loaded["ours"]) == (True, True, False)
    assert loaded["sizes"] == [278, 278 + PIECES, 278 + PIECES, 278 + PIECES, 16]
    growth = json.loads((root / "reports/tokenizer/details.json").read_bytes())["growth"]
    assert {part: [growth[part]["before"], growth[part]["after"]] for part in ("train", "val")} == loaded["rates"]
    assert growth["val"]["after"] < growth["val"]["before"]
    assert growth["pieces"] == PIECES

    audit = json.loads((root / "reports/safety_audit/audit.json").read_bytes())
    assert audit["parts"]["membership"]["numbers"]["auc_reference"]["why"] == (
        f"the base model {BASE} reads other tokens: the audited model reads {PIECES} further pieces"
    )
    assert "pieces of train added to its vocabulary" in (root / "reports/report/index.html").read_text(encoding="utf-8")
    details = json.loads((root / "reports/evaluate/details.json").read_bytes())
    assert details["tasks"]["documents"]["metrics"]["bits_per_byte"]["value"] > 0

    workspace.cli("tokenizer", "validate", "-t", "models/model")
    workspace.cli("export", "adapter", "--out", "adapter")
    adapted = workspace.run("python", "-c", ADAPTED).stdout.splitlines()[-2:]
    assert list(map(json.loads, adapted)) == [["PeftModelForCausalLM", 278 + PIECES, 16]] * 2


def run(workspace: Workspace, *stages: str) -> None:
    for stage in stages:
        workspace.run("python", f"stages/{stage}.py")
