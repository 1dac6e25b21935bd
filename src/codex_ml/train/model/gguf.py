"""Turn a GGUF file into a Hugging Face folder, in a child process that can do little else.

Parsers of GGUF are where attacks on model files went (CVE-2025-53630, CVE-2026-27940, CVE-2026-7482), so the file is
parsed by the Python reader only, by a process with limits on memory and time and without network and programs. What
the child leaves is read as a foreign folder, like any other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import codex_ml
from codex_ml.core.errors import UserError, disk_error_in
from codex_ml.core.io import atomic_folder, write_json
from codex_ml.core.packages import install_extra
from codex_ml.train.model.gguf_header import refuse_impossible

MAGIC = b"GGUF"
# The reader holds the model about twice in float32; formats of 2 bits grow to 16 times their size.
GROWTH, HEADROOM = 40, 2 << 30  # times the file, and bytes
CPU_SECONDS, CPU_SECONDS_A_GIB = 300, 1200
KEPT = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "additional_chat_templates")
FORBIDDEN = ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec",
             "os.posix_spawn", "os.fork")  # fmt: skip


def convert(path: Path, folder: Path, *, weights: bool = True) -> None:
    """Write model.safetensors (float32), config.json and tokenizer.json of a GGUF file to `folder`.

    Args:
        folder: appears complete or not at all.
        weights: False writes the tokenizer's files only.

    Raises:
        UserError: when the file is no GGUF file, the package `gguf` is missing, or the child could not read the file
            within its limits.
    """
    with path.open("rb") as handle:
        if handle.read(4) != MAGIC:
            raise UserError(f"{path} is neither a folder nor a GGUF file; model.path names one of these")
    if find_spec("gguf") is None:
        raise UserError(f"{path} needs the package gguf; {install_extra('gguf')}")
    refuse_impossible(path)
    with tempfile.TemporaryDirectory(prefix="codex-ml-gguf-") as scratch:
        # an empty folder, so that the library finds nothing beside the file
        source, made = Path(scratch) / "model.gguf", Path(scratch) / "made"
        source.symlink_to(path.resolve())
        made.mkdir()
        child = subprocess.run(
            [sys.executable, "-I", "-c", _START, str(source), str(made), "all" if weights else "tokenizer"],
            env=_environment(scratch),
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if child.returncode != 0:
            reason = _reason(child)
            if disk := disk_error_in(reason, scratch):
                raise disk
            raise UserError(f"{path} could not be read as GGUF: {reason}")
        with atomic_folder(folder) as target:
            shutil.copytree(made, target, copy_function=shutil.copyfile, dirs_exist_ok=True)


# -I leaves PYTHONPATH out, so the child is told where this library lies; the hook comes before anything is read.
_START = f"import sys; sys.path.insert(0, {str(Path(codex_ml.__file__).resolve().parents[1])!r}); \
from codex_ml.train.model.gguf import child_main; child_main(*sys.argv[1:])"


def _environment(home: str) -> dict[str, str]:
    """What the child sees: no secrets of the parent."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**kept, **offline, "HOME": home, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONHASHSEED": "0"}


def _reason(child: subprocess.CompletedProcess[bytes]) -> str:
    if child.returncode < 0:
        return f"the child process was ended by signal {-child.returncode} at its limit of time or memory"
    lines = child.stderr.decode("utf-8", "replace").strip().splitlines()
    return " ".join((lines or ["the child process said nothing"])[-1].split())[:300]


def child_main(source: str, made: str, what: str) -> None:
    """The child: load the libraries, then give up what is not needed, then touch the file."""
    import gguf  # noqa: F401
    import torch
    import transformers  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils  # noqa: F401
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(1)
    limit(Path(source).stat().st_size)
    try:
        _write(Path(source), Path(made), weights=what == "all")
    except MemoryError:
        sys.exit("it needs more memory than a file of its size may")
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def limit(size: int) -> None:
    """Bound this process for a file of `size` bytes: address space, CPU time, no new file of the parent, no network."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    memory = pages * resource.getpagesize() + HEADROOM + GROWTH * size
    seconds = CPU_SECONDS + CPU_SECONDS_A_GIB * size // 2**30
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(FORBIDDEN):
        raise PermissionError(f"{event} is not allowed while a foreign file is read")


def _write(source: Path, made: Path, *, weights: bool) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where, name = source.parent, source.name
    AutoTokenizer.from_pretrained(where, gguf_file=name, local_files_only=True).save_pretrained(made)
    for file in made.iterdir():
        if file.name not in KEPT:
            file.unlink()
    if not weights:
        return
    model = AutoModelForCausalLM.from_pretrained(
        where, gguf_file=name, local_files_only=True, attn_implementation="eager", dtype=torch.float32
    )
    tensors = {name: p.detach().contiguous() for name, p in model.named_parameters()}  # tied ones once
    if packed := [name for name, tensor in tensors.items() if tensor.dtype != torch.float32]:
        raise ValueError(f"{packed[0]} was not unpacked to float32")
    save_file(tensors, made / "model.safetensors")
    config = model.config.to_diff_dict()
    config.pop("quantization_config", None)
    write_json(made / "config.json", {**config, "dtype": "float32"})
