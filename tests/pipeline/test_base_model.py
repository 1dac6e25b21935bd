"""A run on a model of others with a BOS of its own, through the real stages: what is written about it is so."""

from __future__ import annotations

import json
import math
import os
import stat
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from workspace import Finished, Workspace

BASE = "models/base/theirs"
CURVES = "reports/train/plots/metrics/train"
MASK = 0o027
PARAMS = {
    "tokenizer": {"kind": "local", "path": BASE},
    "pack": {"seq_len": 48},
    "model": {"path": BASE, "lora": {"rank": 2, "targets": ["q_proj"]}},
}


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory) -> Workspace:
    """The tiny workspace after `dvc repro` on a Llama of two layers, 24 wide, of 48 positions, under umask 027."""
    workspace = finished.workspace.copy(tmp_path_factory.mktemp("base") / "here")
    write_base(workspace.root)
    params = yaml.safe_load((workspace.root / "params.yaml").read_text(encoding="utf-8"))
    train = {**params["train"], "max_steps": 4, "eval_every": 2, "warmup_steps": 1}
    (workspace.root / "params.yaml").write_text(yaml.safe_dump({**params, **PARAMS, "train": train}), encoding="utf-8")
    workspace.run("python", "-c", f"import os, sys; os.umask({MASK}); sys.exit(os.system('python -m dvc repro -q'))")
    return workspace


def write_base(root: Path) -> None:
    import torch
    from tokenizers import AddedToken, Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = root / BASE
    folder.mkdir(parents=True)
    tokenizer = Tokenizer.from_file(str(root / "models/tokenizer/tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, "add_bos_token": True}))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=24, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=48, bos_token_id=1, eos_token_id=[2, 3], tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def ids_of(tokenizer_json: Path) -> dict[str, int]:
    return {t["content"]: t["id"] for t in json.loads(tokenizer_json.read_bytes())["added_tokens"]}


def vocabulary(folder: Path) -> dict[str, int]:
    from tokenizers import Tokenizer

    whole: dict[str, int] = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    return whole


def test_bos_and_eos_have_one_id_in_every_file_and_plain_text_gets_one_bos(run: Workspace) -> None:
    folder = run.root / "models/model"
    ids = ids_of(folder / "tokenizer.json")
    for name in ("config.json", "generation_config.json"):
        config = json.loads((folder / name).read_bytes())
        assert (config["bos_token_id"], config["eos_token_id"]) == (ids["<s>"], ids["</s>"]), name
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    assert (config["bos_token"], config["eos_token"], config["model_max_length"]) == ("<s>", "</s>", 48)
    processor = json.loads((folder / "tokenizer.json").read_bytes())["post_processor"]
    assert processor["special_tokens"]["<s>"]["ids"] == [ids["<s>"]]

    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    found = plain("value = 1\n" * 60, truncation=True)["input_ids"]
    assert found[0] == ids["<s>"]
    assert found.count(ids["<s>"]) == 1
    assert len(found) == 48


def test_rows_and_scores_begin_with_bos(run: Workspace) -> None:
    """The likelihood of the test split, computed here by plain transformers, each document as <s> text </s>."""
    import numpy as np
    import pyarrow.parquet as pq
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    folder = run.root / "models/model"
    ids = ids_of(folder / "tokenizer.json")
    about = json.loads((run.root / "data/packed/pack.json").read_bytes())
    assert (about["begin"], about["end"]) == (ids["<s>"], ids["</s>"])
    stream = np.fromfile(run.root / "data/packed/test.bin", dtype=about["dtype"])
    starts = np.fromfile(run.root / "data/packed/test.starts", dtype="<u8")[:-1]
    assert set(stream[starts.astype(int) + 1].tolist()) == {ids["<s>"]}

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    nll, size = 0.0, 0
    windows = defaultdict(list)  # by length, so that no batch needs padding
    for text in pq.read_table(run.root / "data/splits/test.parquet")["text"].to_pylist():
        size += len(text.encode())
        tokens = [ids["<s>"], *tokenizer.encode(text, add_special_tokens=False).ids, ids["</s>"]]
        for begin in range(0, len(tokens) - 1, 48):
            window = tokens[begin : begin + 49]
            windows[len(window)].append(window)
    for batch in (part for equal in windows.values() for part in torch.tensor(equal).split(64)):
        with torch.no_grad():
            logprobs = model(input_ids=batch[:, :-1]).logits.double().log_softmax(-1)
        nll -= float(logprobs.gather(2, batch[:, 1:, None]).sum())
    metrics = json.loads((run.root / "reports/evaluate/metrics.json").read_bytes())
    assert metrics["bits_per_byte"] == pytest.approx(nll / math.log(2) / size, rel=1e-5)


def test_the_card_says_what_was_trained(run: Workspace) -> None:
    training = json.loads((run.root / "models/model/training.json").read_bytes())
    sha256 = training["model"]["base"]["sha256"]
    assert training["model"] == {
        "architecture": "llama", "encoder_decoder": False, "layers": 2, "hidden_size": 24, "heads": 2, "positions": 48,
        "base": {"path": BASE, "sha256": sha256}, "quantization": "none",
        "lora": {"rank": 2, "alpha": 16.0, "modules": 2, "trained": 2 * 2 * (24 + 24)},
    }  # fmt: skip
    assert training["tokenizer"] == "byte-level BPE"
    assert training["hardware"]["device"] == "cpu"
    card = (run.root / "reports/report/model_card.md").read_text(encoding="utf-8")
    assert (
        f"fine-tuned: LoRA adapters of rank 2 in 2 modules, 192 parameters, merged into the weights; from {BASE}"
        in card
    )
    assert sha256 in card
    assert "(2 layers of width 24 with 2 heads)" in card
    assert "It reads at most 48 tokens of a byte-level BPE with 402 entries." in card
    assert "scratch" not in card
    assert training["optimizer"] == {"name": "adamw", "lr": 0.003, "embedding_lr": None}
    assert "AdamW trained the adapters at a peak learning rate of 0.003." in card
    assert not (run.root / CURVES / "embedding_lr.tsv").exists()


def test_the_card_of_a_run_from_scratch_says_so(finished: Finished) -> None:
    root = finished.workspace.root
    training = json.loads((root / "models/model/training.json").read_bytes())
    assert (training["model"]["base"], training["model"]["lora"]) == (None, None)
    card = (root / "reports/report/model_card.md").read_text(encoding="utf-8")
    assert "(1 layers of width 16 with 2 heads), trained from scratch.\nIt reads at most 64 tokens" in card
    assert f"of a byte-level BPE with {len(vocabulary(root / 'models/model'))} entries." in card
    assert "| trained | from scratch |" in card
    assert f"| precision | {training['hardware']['precision']} on cpu |" in card
    assert "fine-tuned" not in card
    width = (768 / 16) ** 0.5
    assert training["optimizer"]["name"] == "muon"
    assert training["optimizer"]["lr"] == pytest.approx(0.003 * width)
    assert f"Muon trained the hidden matrices at a peak learning rate of {0.003 * width:.3g}." in card
    lines = {name: (root / CURVES / f"{name}.tsv").read_text().splitlines() for name in ("lr", "embedding_lr")}
    assert len(lines["embedding_lr"]) == len(lines["lr"]) > 2


def wrong_modes(root: Path, stages: tuple[str, ...], mask: int) -> tuple[dict[str, str], int]:
    """Outputs of stages whose mode is not that of the umask, and how many files there are."""
    pipeline = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    outs = [next(iter(out)) if isinstance(out, dict) else out for name in stages for out in pipeline[name]["outs"]]
    wrong, files = {}, 0
    for out in outs:
        for path in [root / out, *(root / out).rglob("*")]:
            expected = (0o777 if path.is_dir() else 0o666) & ~mask
            files += path.is_file()
            if (mode := stat.S_IMODE(path.stat().st_mode)) != expected:
                wrong[os.path.relpath(path, root)] = oct(mode)
    return wrong, files


def test_every_file_that_a_stage_wrote_has_the_mode_of_the_umask(run: Workspace) -> None:
    """From the tokenizer on, checkpoints and adapters among them."""
    wrong, files = wrong_modes(run.root, ("tokenizer", "pack", "train", "evaluate", "safety_audit", "report"), MASK)
    assert wrong == {}
    assert files > 40


def test_every_file_of_all_nine_stages_has_the_mode_of_the_usual_umask(finished: Finished) -> None:
    os.umask(mask := os.umask(0))
    stages = ("fetch", "ingest", "split", "tokenizer", "pack", "train", "evaluate", "safety_audit", "report")
    others, files = wrong_modes(finished.workspace.root, stages, mask)
    raw = {"data/corpus": "0o700", "data/corpus/documents.parquet": "0o600", "data/corpus/refused.ndjson": "0o600"}
    assert others == raw  # only its owner may read what the policy has not cleaned
    assert files > 50


def test_the_audit_compares_the_model_with_its_base(run: Workspace) -> None:
    audit = json.loads((run.root / "reports/safety_audit/audit.json").read_bytes())
    number = audit["parts"]["membership"]["numbers"]["auc_reference"]
    assert "why" not in number
    assert number["low"] <= number["value"] <= number["high"]
