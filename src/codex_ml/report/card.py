"""The model card: Hugging Face front matter and Markdown, derived from the facts alone.

`ModelCard` writes and parses the front matter. Its `validate` and `push_to_hub` call the network and are never used.
"""

from __future__ import annotations

from typing import Any

from codex_ml.core.errors import safe_line
from codex_ml.inference.evaluate_files import CODE, table_stem
from codex_ml.report import audit_sentences, audit_tables, data_tables, sentences, tables
from codex_ml.report.card_results import eval_results, evaluation_section
from codex_ml.report.facts import Facts
from codex_ml.report.markdown import escape, fenced, markdown_table

SAMPLE_CHARACTERS = 600
KINDS = {
    "llama": "A decoder-only language model in the shape of Llama",
    "qwen2": "A decoder-only language model in the shape of Qwen2",
    "qwen3": "A decoder-only language model in the shape of Qwen3",
    "mistral": "A decoder-only language model in the shape of Mistral",
    "gpt2": "A decoder-only language model in the shape of GPT-2",
    "gpt_neox": "A decoder-only language model in the shape of GPT-NeoX",
    "gpt_bigcode": "A decoder-only language model in the shape of GPT-BigCode",
    "starcoder2": "A decoder-only language model in the shape of StarCoder2",
    "codegen": "A decoder-only language model in the shape of CodeGen",
    "phi": "A decoder-only language model in the shape of Phi",
    "phi3": "A decoder-only language model in the shape of Phi-3",
    "olmo2": "A decoder-only language model in the shape of OLMo 2",
    "granite": "A decoder-only language model in the shape of Granite",
    "smollm3": "A decoder-only language model in the shape of SmolLM3",
    "gemma": "A decoder-only language model in the shape of Gemma",
    "t5": "An encoder-decoder, which continues the text that its encoder reads, in the shape of T5",
}
HUB_LICENCES = {
    "MIT": "mit",
    "Apache-2.0": "apache-2.0",
    "BSD-2-Clause": "bsd-2-clause",
    "BSD-3-Clause": "bsd-3-clause",
}


def render_card(facts: Facts) -> str:
    """Return the whole card; equal facts give equal text."""
    from huggingface_hub import ModelCard

    sections = (
        f"# {escape(facts.title)}",
        f"**{escape(audit_sentences.audit_result(facts).strip())}**",
        escape(sentences.headline(facts)),
        _description(facts),
        _training_data(facts),
        _recipe(facts),
        evaluation_section(facts),
        _safety(facts),
        _limitations(facts),
        USE.replace("AutoModelForCausalLM", "AutoModelForSeq2SeqLM") if facts.training.model.encoder_decoder else USE,
        _how_made(facts),
    )
    body = "\n\n".join(sections)
    return str(ModelCard(f"---\n{_front_matter(facts)}\n---\n\n{body}\n"))


def _front_matter(facts: Facts) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        language="code" if facts.is_code else None,
        **_licence(facts),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["codex-ml", "dvc", *_origin(facts)],
        model_name=safe_line(facts.title),
        eval_results=eval_results(facts),
    )
    return data.to_yaml()


def _origin(facts: Facts) -> list[str]:
    """Tags. A path of this repository is not a `base_model`, which must be a model of the Hub."""
    if facts.base is None:
        return ["trained-from-scratch"]
    return ["fine-tuned", *(["lora"] if facts.training.model.lora else [])]


def _licence(facts: Facts) -> dict[str, Any]:
    """The licence of the training documents if they have only one, or "other": no single one covers the weights then.

    A base model brings its own licence, which is not known here.
    """
    if facts.base:
        return {"license": "other", "license_name": "licences-of-the-base-model-and-the-training-data"}
    names = [name for name, _ in facts.licences]
    if len(names) == 1 and names[0] in HUB_LICENCES:
        return {"license": HUB_LICENCES[names[0]]}
    return {"license": "other", "license_name": "licences-of-the-training-data"}


def _description(facts: Facts) -> str:
    model = facts.training.model
    family = KINDS.get(model.architecture, f"A language model in the shape of {escape(model.architecture)}")
    both = " in the encoder and in the decoder" if model.encoder_decoder else ""
    shape = f"{model.layers} layers{both} of width {model.hidden_size} with {model.heads} heads"
    reads = f"at most {model.positions:,} tokens" if model.positions else "tokens by their relative positions,"
    how = "trained" if facts.base is None else "fine-tuned:"
    kind = f"{facts.training.tokenizer} with {facts.tokenizer.vocab_size:,} entries"
    return f"""## Description

{family}, {facts.parameters:,} parameters ({shape}), {how} {escape(sentences.trained_from(facts))}.
It reads {reads} of a {escape(kind)}. The
weights are safetensors in the plain Hugging Face layout; loading them runs no code.

{markdown_table(tables.model(facts))}"""


def _training_data(facts: Facts) -> str:
    return f"""## Training data

{facts.ingest.documents:,} documents ({facts.ingest.megabytes:,.1f} MB) were read and {facts.ingest.refused:,} refused.
After licences, quality limits, the text policy and duplicates {facts.split.train.documents:,} were left for training.

{markdown_table(tables.splits(facts))}

{markdown_table(tables.dropped(facts))}

### Licences

{markdown_table(tables.licences(facts))}

### How the test set was kept clean

Near-duplicates count as one document. A keyed hash of the content decides its split, so names and order have no
influence. {escape(sentences.counterfactual(facts))}

### Text policy

{escape(data_tables.policy_note(facts))}"""


def _recipe(facts: Facts) -> str:
    return f"""## Training recipe

{escape(sentences.optimizer(facts))}

{markdown_table(tables.recipe(facts))}

### Tokenizer

{markdown_table(tables.tokenizer(facts))}"""


def _safety(facts: Facts) -> str:
    found = f"\n\n{markdown_table(audit_tables.finding_counts(facts))}" if facts.findings else ""
    skipped = "".join(f"\n- {escape(line)}" for line in audit_sentences.skipped_parts(facts)) or "\n- Nothing."
    return f"""## Safety audit

{escape(audit_sentences.audit_result(facts))}

{escape(audit_sentences.audit_reading(facts))}

{markdown_table(audit_tables.gates(facts))}

### Numbers of the audit

{markdown_table(audit_tables.headline_numbers(facts))}

### Not measured by the audit
{skipped}

### Findings

{escape(audit_sentences.findings_note(facts))}{found}"""


def _limitations(facts: Facts) -> str:
    ratio = facts.passes * facts.pack.train.targets / facts.parameters
    sample = facts.samples[0].text[:SAMPLE_CHARACTERS] if facts.samples else ""
    shown = f"\n\nThe first text that the audit sampled; it was not selected:\n\n{fenced(sample)}" if sample else ""
    return f"""## Limitations and intended use

This model is for studying a training pipeline: its inputs, its outputs, and how to verify them. It is not for writing
code or text that people rely on.

{_what_it_saw(facts, ratio)}
- {escape(_compression(facts))}.{_canaries(facts)}
- The test split comes from the same sources as the training data; other code and other languages were not measured.
- {_not_measured(facts)}
- The audit looks for known kinds of secrets and for verbatim copies after a true prefix. The model may contain secrets
  and copies that the audit does not find.{shown}"""


def _canaries(facts: Facts) -> str:
    planted = facts.pack.canaries
    if planted is None:
        return ""
    return (
        f"\n- Its training rows hold {planted.inserted:,} copies of {planted.different:,} invented secrets (canaries), "
        "with which the\n  audit measures memorisation. It may write them; they open nothing."
    )


def _what_it_saw(facts: Facts, ratio: float) -> str:
    """What the model has seen: all of it for a run from scratch; for a base model, that it is not known."""
    instructions = "Whether it follows instructions, and what it refuses, was not measured."
    if facts.base is None and facts.is_plain_text:
        instructions = "It was neither tuned to follow instructions nor to refuse; it continues text."
    size, length = f"It has {facts.parameters / 1e6:,.2f} million parameters", f"{facts.training.seq_len:,} tokens"
    if facts.base is None:
        seen = (
            f"{size} and was trained on {ratio:,.1f} tokens for each; about 20 are usual for a\n  model that uses its "
            f"size well (Hoffmann et al. 2022).\n- It has never seen a context longer than {length}."
        )
    else:
        seen = (
            f"{size}; this run trained it on {ratio:,.1f} tokens for each, in rows of {length}.\n- It is not known "
            "here what its base model was trained on, and which licences, secrets or test documents that data has."
        )
    return f"- {instructions}\n- {seen}"


def _not_measured(facts: Facts) -> str:
    """What of generated code was not measured; the audit says of its own parts what it left out."""
    audited = "insecure_code" in audit_sentences.measured_parts(facts)
    security = "" if audited else "security"
    executed = any(table_stem(task) == CODE for task in facts.evaluation.tasks)
    if executed:
        missing = " and ".join(filter(None, [security, "bias"]))
        verb = "was" if audited else "were"
        return (
            "Correctness of generated code was measured on the programming tasks above only; its "
            f"{missing} {verb} not measured."
        )
    missing = "Correctness and bias" if audited else "Correctness, security and bias"
    return f"{missing} of generated code were not measured."


def _compression(facts: Facts) -> str:
    if facts.evaluation.bits is None:
        return f"On the test split: {sentences.against_zlib(facts)}"
    return f"On the test split its bits per byte are {sentences.against_zlib(facts)}"


USE = """## How to use

From the top folder of the repository, without a network:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("models/model", local_files_only=True)
model = AutoModelForCausalLM.from_pretrained("models/model", local_files_only=True, use_safetensors=True)
inputs = tokenizer("def read_file(path):\\n", return_tensors="pt", return_token_type_ids=False)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))
```"""


def _how_made(facts: Facts) -> str:
    return f"""## How it was made

By codex-ml, with `dvc repro`. Equal inputs, parameters and code give equal bytes on the same hardware.

{markdown_table(tables.commands())}

### What each stage read

{markdown_table(tables.lineage(facts))}

### Environment

{markdown_table(tables.packages(facts))}"""
