"""The kinds of input that are mutated: how one is made, and the function of ours that reads it.

A `Kind` has small valid inputs as seeds. `read` is what a stage or a command calls for such a file, or what it calls in
its limited child; it returns whether the input was accepted, and raises UserError or CheckFailed for a refusal. Any
other exception is a fault.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from .mutations import changed_bytes, changed_json, changed_message, changed_text, json_bytes, one_of

Read = Callable[[Path], bool]
TEXT = "def f(x):\n    return x + 1  # \u00e9\U0001f468\n"


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        name: of the file that `read` gets.
        valid: an input without a change, which is accepted.
        make: a mutated input for a state of the RNG.
        read: reads the file; True if it was accepted.
        ends: whether a library may end the process, because a stage reads such a file in a limited child only.
    """

    name: str
    valid: bytes
    make: Callable[[Random], bytes]
    read: Read
    ends: bool = False


def kind_named(name: str, folder: Path) -> Kind:
    """Make the seeds of a kind below `folder`, an empty one that stays."""
    return KINDS[name](folder)


# Text formats and archives: what `ingest` reads


def _ingested(kind: str) -> Read:
    from codex_ml.core.sections import validate
    from codex_ml.ingest.config import Source
    from codex_ml.ingest.readers import plan_source
    from codex_ml.ingest.sources import read_task

    def read(file: Path) -> bool:
        source = validate(Source, {"kind": kind, "path": "data", "glob": "**/*", "bad_records": "skip"}, name="fuzz")
        source = source.model_copy(update={"path": str(file)})
        return sum(len(read_task(task).ids) for task in plan_source(source, max_bytes=100_000)) > 0

    return read


RECORDS = [
    {"text": TEXT, "id": "a", "licence": "MIT", "meta": {"n": [1, 2.5, None]}},
    {"prompt": "p", "completion": "c", "input": "i"},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": []}], "tools": []},
]  # fmt: skip


def _jsonl(folder: Path) -> Kind:
    seeds = [json.dumps(record, ensure_ascii=False).encode() for record in RECORDS]

    def structured(rng: Random) -> bytes:
        lines = [json_bytes(changed_json(record, rng), rng) for record in rng.choices(RECORDS, k=rng.choice((1, 2, 5)))]
        return rng.choice((b"\n", b"\r\n", b"\n\n")).join(lines)

    return Kind(
        "data.jsonl",
        b"\n".join(seeds),
        one_of([structured, structured, lambda rng: changed_bytes(b"\n".join(seeds), rng, others=seeds)]),
        _ingested("jsonl"),
    )


def _csv(folder: Path) -> Kind:
    seed = b'text,id,licence\n"a ""b""\nc",1,MIT\r\nx,2,\n'
    return Kind(
        "data.csv",
        seed,
        lambda rng: changed_bytes(seed, rng, others=[b'"', b",", b"\r", b"\0", b"text"]),
        _ingested("csv"),
    )


def _parquet(folder: Path) -> Kind:
    import pyarrow as pa
    import pyarrow.parquet as pq

    seeds = []
    for options in (
        {"compression": "zstd"},
        {"compression": "none", "use_dictionary": False},
        {"data_page_version": "2.0"},
    ):
        table = pa.table({
            "text": [TEXT, "b" * 300, None, "d"] * 5, "id": list(map(str, range(20))), "n": list(range(20)),
            "messages": [[{"role": "user", "content": "a"}]] * 20,
        })  # fmt: skip
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=7, **options)
        seeds.append(buffer.getvalue())
    return Kind(
        "data.parquet",
        seeds[0],
        lambda rng: changed_bytes(rng.choice(seeds), rng, others=seeds, tail=0.6),
        _ingested("parquet"),
    )


MEMBERS = {"a.py": TEXT, "b/c.py": "x = 1\n" * 50, "LICENSE": "MIT", "d/e/f.txt": ""}
NAMES = (
    "../x.py",
    "/etc/x.py",
    "a.py/b.py",
    "\0.py",
    "a\\b.py",
    "x" * 5000 + ".py",
    "\u202e.py",
    "",
    ".",
    "a.py",
    "C:\\x.py",
)


def _zip_bytes(rng: Random, members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", rng.choice((*[zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED] * 9, zipfile.ZIP_BZIP2)), compresslevel=1
    ) as file:
        for name, text in members.items():
            data = text.encode() * (20_000 if rng.random() < 0.01 else 1)
            info = zipfile.ZipInfo(rng.choice(NAMES) if rng.random() < 0.15 else name)
            info.external_attr = rng.choice((0, 0, 0o120777 << 16, 0o010644 << 16))
            info.compress_type = file.compression
            file.writestr(info, data)
    return buffer.getvalue()


def _zipped(name: str, kind: str, members: dict[str, str], *, folder_of: bool = False) -> Kind:
    def make(rng: Random) -> bytes:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # two members of one name
            data = _zip_bytes(rng, members)
        return changed_bytes(data, rng, tail=0.5) if rng.random() < 0.8 else data

    read = _ingested(kind)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path, text in members.items():
            file.writestr(path, text)
    return Kind(name, buffer.getvalue(), make, (lambda file: read(file.parent)) if folder_of else read)


def _zip(folder: Path) -> Kind:
    return _zipped("data.zip", "zip", MEMBERS)


def _wheel(folder: Path) -> Kind:
    meta = {
        "p-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: p\nVersion: 1\nLicense: MIT\n",
        "p-1.dist-info/RECORD": "",
    }
    return _zipped("p-1-py3-none-any.whl", "wheels", {"p/__init__.py": TEXT, **meta}, folder_of=True)


def _tar(folder: Path) -> Kind:
    packed = {
        "": bytes,
        ".gz": lambda d: gzip.compress(d, 1),
        ".bz2": lambda d: bz2.compress(d, 1),
        ".xz": lambda d: lzma.compress(d, preset=0),
    }

    def plain(rng: Random) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(
            fileobj=buffer, mode="w", format=rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
        ) as file:
            for name, text in MEMBERS.items():
                info = tarfile.TarInfo((rng.choice(NAMES) or "e") if rng.random() < 0.04 else name)
                info.size = len(data := text.encode())
                info.type = rng.choice((tarfile.REGTYPE,) * 40 + (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE))
                info.linkname = rng.choice(("", "a.py", "../../x", "b"))
                info.pax_headers = rng.choice(
                    (*[{}] * 20, {"path": "y" * 500}, {"size": "99999999999"}, {"GNU.sparse.major": "1"})
                )
                file.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    def make(rng: Random) -> bytes:
        data = plain(rng)
        if rng.random() < 0.5:
            data = _with_checksums(bytearray(changed_bytes(data, rng)), rng)
        data = packed[rng.choice(list(packed))](data)
        return changed_bytes(data, rng) if rng.random() < 0.2 else data

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        info = tarfile.TarInfo("a.py")
        info.size = len(TEXT.encode())
        file.addfile(info, io.BytesIO(TEXT.encode()))
    ingested, marks = _ingested("tar"), {b"\x1f\x8b": ".gz", b"BZ": ".bz2", b"\xfd7": ".xz"}

    def read(file: Path) -> bool:
        named = file.with_name("data.tar" + marks.get(file.read_bytes()[:2], ""))  # the name must say the compression
        file.rename(named)
        try:
            return ingested(named)
        finally:
            named.rename(file)

    return Kind("data.tar", buffer.getvalue(), make, read)


def _with_checksums(data: bytearray, rng: Random) -> bytes:
    """Correct the checksum of each header that looks like one, so that its other fields are read."""
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar" and rng.random() < 0.9:
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)


# Models


def _safetensors(folder: Path) -> Kind:
    from codex_ml.train.model.weights import check_weights, read_tensors

    header = {
        "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        "h.0.attn.bias": {"dtype": "BOOL", "shape": [1, 1, 2, 2], "data_offsets": [32, 36]},
        "__metadata__": {"format": "pt"},
    }
    odd = ("F64", "F16", "I64", "F8_E4M3", [2, 3], [0, 24], 24, 32)

    def whole(text: bytes) -> bytes:
        return struct.pack("<Q", len(text)) + text + bytes(range(36))

    def read(file: Path) -> bool:
        return bool(dict(read_tensors(file, check_weights(file))))

    plain = whole(json.dumps(header).encode())
    return Kind(
        "model.safetensors",
        plain,
        one_of(
            [
                lambda rng: whole(json_bytes(changed_json(header, rng, odd=odd), rng)),
                lambda rng: changed_bytes(plain, rng),
            ]
        ),
        read,
    )


def _tiny_model(folder: Path, kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Write a model with random weights to the folder; return its config.json."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))
    save_file({name: p.detach().contiguous() for name, p in model.named_parameters()}, folder / "model.safetensors")
    return {"model_type": kind, **settings}


def _config(folder: Path) -> Kind:
    from codex_ml.train.model.foreign import check_folder
    from codex_ml.train.model.local_model import load_local

    llama = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32,
        "num_key_value_heads": 1, "max_position_embeddings": 64, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "bos_token_id": 0, "eos_token_id": 1,
        "tie_word_embeddings": True, "attention_bias": False,
    }  # fmt: skip
    bigcode = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": 32, "n_inner": 24}
    seeds = {}
    for kind, settings in (("llama", llama), ("gpt_bigcode", bigcode)):
        (folder / kind).mkdir()
        seeds[kind] = _tiny_model(folder / kind, kind, settings)
    odd = ("llama", "gpt2", "gpt_bigcode", "gemma", "phi3", "linear", "yarn", "longrope", 40_000, 2**20)

    def read(file: Path) -> bool:
        base = file.parent / "base"
        base.mkdir(exist_ok=True)
        kind = "gpt_bigcode" if b"n_embd" in file.read_bytes() else "llama"
        shutil.copyfile(folder / kind / "model.safetensors", base / "model.safetensors")
        shutil.copyfile(file, base / "config.json")
        try:
            check_folder(base)
            return load_local(base, attention="eager", scratch=file.parent) is not None
        finally:
            shutil.rmtree(base)

    def make(rng: Random) -> bytes:
        return json_bytes(changed_json(seeds[rng.choice(list(seeds))], rng, odd=odd), rng)

    return Kind("config.json", json.dumps(seeds["llama"]).encode(), make, read)


def _index(folder: Path) -> Kind:
    from codex_ml.train.model.foreign import weight_files

    shard = "model-0000{}-of-00002.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    other = header.replace(b'"a"', b'"b"')
    seed = {"metadata": {"total_size": 8}, "weight_map": {"a": shard.format(1), "b": shard.format(2)}}

    def read(file: Path) -> bool:
        for number, text in ((1, header), (2, other)):
            (file.parent / shard.format(number)).write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
        try:
            return len(weight_files(file.parent)) == 2
        finally:
            for number in (1, 2):
                (file.parent / shard.format(number)).unlink()

    return Kind(
        "model.safetensors.index.json",
        json.dumps(seed).encode(),
        lambda rng: json_bytes(changed_json(seed, rng, odd=(shard.format(1), "/etc/passwd")), rng),
        read,
    )


def _gguf(folder: Path) -> Kind:
    from codex_ml.core.gguf_file import refuse_impossible

    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    keys = [
        text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama"),
        text(b"llama.block_count") + struct.pack("<II", 4, 2),
        text(b"llama.embedding_length") + struct.pack("<IQ", 10, 8),
        text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3) + text(b"a") + text(b"b") + text(b""),
        text(b"tokenizer.ggml.scores") + struct.pack("<IIQ3f", 9, 6, 3, 0.0, -1.0, -2.0),
        text(b"x.nested") + struct.pack("<IIQIQB", 9, 9, 1, 0, 1, 7),
    ]
    tensors = [
        text(b"blk.%d.w" % n) + struct.pack("<IQQIQ", 2, 8, 8, 0, n * 256) for n in range(2)
    ]  # fmt: skip

    def whole(version: int, chosen: list[bytes]) -> bytes:
        head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(chosen))
        return head + b"".join(chosen) + b"".join(tensors) + bytes(512)

    def make(rng: Random) -> bytes:
        return changed_bytes(whole(rng.choice((2, 3, 3, 1)), rng.choices(keys, k=rng.choice((1, 3, 6)))), rng)

    def read(file: Path) -> bool:
        refuse_impossible(file)
        return True

    return Kind("model.gguf", whole(3, keys), make, read)


# Tokenizers


def _trained(folder: Path, kind: str) -> Path:
    from codex_ml.tokenizer.config import Tokenizer
    from codex_ml.tokenizer.training import train_tokenizer

    made = folder / kind
    made.mkdir()
    texts = [f"def function_{n}(value):\n    return value + {n}\n" for n in range(60)]
    train_tokenizer(lambda: iter(texts), Tokenizer(kind=kind, vocab_size=420), made)
    return made


class SameProcess:
    """Answers in this process what a `LimitedChild` answers, a hundred times as fast. This process has limits too."""

    def __init__(self, prepare: Any, **_: Any) -> None:
        self._answer = prepare()

    def __enter__(self) -> SameProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: dict[str, Any]) -> Any:
        from codex_ml.core.child import AnswerError, _answered

        answer = _answered(self._answer, json.dumps(request))
        if "error" in answer:
            raise AnswerError(answer["error"])
        return json.loads(json.dumps(answer["ok"]))

    def close(self) -> None:
        pass


def _imported(folder: Path) -> Read:
    """Import a tokenizer as the stage does, then load it and encode with it."""
    from codex_ml.tokenizer import local_tokenizer
    from codex_ml.tokenizer.config import Tokenizer
    from codex_ml.tokens import confined_tokenizer
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    local_tokenizer.LimitedChild = SameProcess  # type: ignore[misc, assignment]
    confined_tokenizer.LimitedChild = SameProcess  # type: ignore[misc, assignment]
    local_tokenizer.PROBES = ["a" * 300 + "!", *local_tokenizer.HARD]
    settings = Tokenizer(kind="local", path="models/base/theirs", special_tokens=("</s>",))

    def read(file: Path) -> bool:
        theirs, out = folder / "theirs", folder / "out"
        for made in (theirs, out):
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
        shutil.copyfile(file, theirs / file.name)
        (theirs / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
        local_tokenizer.import_tokenizer(theirs, lambda: iter([TEXT]), settings, out)
        tokenizer = load_tokenizer(out)
        for text in (TEXT, "", " a b", "\0\U0010ffff"):
            tokenizer.decode(tokenizer.encode(text))
        return True

    return read


def _protobuf(folder: Path) -> Kind:
    """The parser of SentencePiece files alone, which is fast enough for many inputs."""
    from codex_ml.tokenizer.sentencepiece_file import read_model

    whole = _sentencepiece(folder)
    return Kind(whole.name, whole.valid, whole.make, lambda file: bool(read_model(file.read_bytes(), file).pieces))


def _sentencepiece(folder: Path) -> Kind:
    seeds = [
        (_trained(folder, f"sentencepiece_{kind}") / "tokenizer.model").read_bytes() for kind in ("bpe", "unigram")
    ]
    tiny = bytes.fromhex("0a0e0a053c756e6b3e1500000000180212020801")  # one unknown piece
    seeds.append(tiny + b"".join(b"\x0a\x08\x0a\x01%c\x15\0\0\0\xbf" % letter for letter in b"abc_ "))

    def make(rng: Random) -> bytes:
        seed = rng.choice(seeds)
        return changed_message(seed, rng) if rng.random() < 0.7 else changed_bytes(seed, rng, others=seeds)

    return Kind("theirs.model", seeds[0], make, _imported(folder), ends=True)


def _tokenizer(folder: Path) -> Kind:
    seeds = []
    for kind in ("byte_bpe", "sentencepiece_unigram", "wordpiece"):
        description = json.loads((_trained(folder, kind) / "tokenizer.json").read_bytes())
        description["post_processor"] = {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}
        seeds.append(description)
    rules: list[Any] = [
        {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "a" * 900}, {"type": "Prepend", "prepend": "x"},
        {"type": "Split", "pattern": {"Regex": r"\s+(?!\S)"}, "behavior": "Isolated", "invert": False},
        {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "NFKC"}, {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
        {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
    ]  # fmt: skip

    def make(rng: Random) -> bytes:
        seed = dict(rng.choice(seeds))
        if rng.random() < 0.7:  # the vocabulary is most of the file, and its pieces are much alike
            part = rng.choice(("normalizer", "pre_tokenizer", "decoder", "added_tokens", "post_processor", "model"))
            if part != "model":
                seed[part] = rng.choice(rules) if rng.random() < 0.3 else changed_json(seed[part], rng, odd=rules)
            else:
                few = {key: value for key, value in seed["model"].items() if key not in ("vocab", "merges")}
                seed["model"] = {**seed["model"], **_mapping(changed_json(few, rng))}
        else:
            seed = changed_json(seed, rng, odd=rules)
        return json_bytes(seed, rng)

    return Kind("tokenizer.json", json.dumps(seeds[0]).encode(), make, _imported(folder), ends=True)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"type": value}


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
JINJA = (
    "{% for m in messages %}", "{% endfor %}", "{% if true %}", "{% else %}", "{% endif %}", "{{ messages }}", "{{ x.y }}",
    "{{ '\\ud800' }}", "{{ '\\x00' }}", "{{ 9 ** 999 }}", "{{ 'a' * 99999999 }}", "{{ raise_exception('no') }}",
    "{% generation %}", "{% endgeneration %}", "{% set x = messages %}", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{{ tools | tojson }}", "{{ strftime_now('%Y') }}", "{{ ''.__class__ }}", "{{ messages | map(attribute='x') | list }}",
    "{{ range(3) | random }}", "{{ lipsum() }}", "{#", "-%}", "{{-", "| trim", "| upper", "\ue000", "\0", "[0]", "(", "}}",
    "{% break %}", "{% include 'x' %}", "{{ cycler('a').next() }}", "{{ namespace(a=1).a }}", "{{ 1 / 0 }}", "{{ eos_token }}",
)  # fmt: skip


def _template(folder: Path) -> Kind:
    from codex_ml.tokenizer.foreign_files import read_chat_templates
    from codex_ml.tokens.chat import encode_chat, encode_prompt
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    tokenizer = load_tokenizer(_trained(folder, "byte_bpe"))
    chat = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c\n"}]

    def read(file: Path) -> bool:
        templates = read_chat_templates(file.parent)
        loaded = replace(tokenizer, chat_template=templates["default"])
        encode_prompt(loaded, chat[:1])
        return len(encode_chat(loaded, chat)[0]) > 0

    def make(rng: Random) -> bytes:
        text = changed_text(CHATML, rng, JINJA).encode("utf-8", "surrogatepass")
        return changed_bytes(text, rng) if rng.random() < 0.1 else text

    return Kind("chat_template.jinja", CHATML.encode(), make, read)


KINDS: dict[str, Callable[[Path], Kind]] = {
    "protobuf": _protobuf,
    "sentencepiece": _sentencepiece,
    "tokenizer": _tokenizer,
    "template": _template,
    "safetensors": _safetensors,
    "index": _index,
    "config": _config,
    "gguf": _gguf,
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
    "zip": _zip,
    "tar": _tar,
    "wheel": _wheel,
}
