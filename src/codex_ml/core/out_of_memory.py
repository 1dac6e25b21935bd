"""Out of memory, in whatever form a library reports it, and what a user can lower in which stage.

Python, NumPy and Arrow raise `MemoryError`, or a class of it. torch raises `OutOfMemoryError` on a GPU and a plain
`RuntimeError` on a CPU. C++ libraries raise `std::bad_alloc`, which arrives as a text; the kernel answers a fork or a
mapping with ENOMEM. Where an error says one of these, no other message about it is true: a model whose weights do not
fit is not damaged.

Used by: errors, stage, train; where a library's error would become a message about the user's file.
"""

from __future__ import annotations

import errno
import re
import signal

# What to lower, by stage. The first one named has the largest effect.
LOWER = {
    "ingest": "runtime.workers or ingest.max_document_bytes",
    "split": "runtime.workers",
    "tokenizer": "tokenizer.vocab_size or ingest.max_document_bytes",
    "pack": "pack.seq_len or ingest.max_document_bytes",
    "train": "train.micro_batch_size (and raise train.accumulation) or pack.seq_len, or set "
    "train.activation_checkpointing",
    "evaluate": "evaluate.batch_size or evaluate.completions.max_tokens",
    "safety_audit": "safety_audit.batch_size or safety_audit.sample_tokens",
}
TEXTS = re.compile(
    r"std::bad_alloc|DefaultCPUAllocator|not enough memory: you tried to allocate|CUDA out of memory"
    r"|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|malloc of size \d+ failed"
    r"|memory allocation of \d+ bytes failed|capacity overflow|Cannot allocate memory|\(os error 12\)"
    r"|Unable to allocate [\d.]+ [KMGTPE]iB"
)
# Signals that end a process without memory: the kernel kills it, or C++ and Rust abort where an allocation failed.
SIGNALS = (signal.SIGKILL, signal.SIGABRT)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Python or of a library says that memory ran out.

    >>> is_out_of_memory(RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"))
    True
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    foreign = isinstance(error, RuntimeError) or not isinstance(error, Exception)  # a panic of Rust is no Exception
    return foreign and TEXTS.search(str(error)) is not None


def memory_advice(stage: str) -> str:
    """One line for a stage that ran out of memory; for anything else, with the name ""."""
    return f"out of memory; {f'lower {LOWER[stage]}' if stage in LOWER else 'end other programs, or ask for less'}"


def ended_without_memory(code: int) -> bool:
    """Whether a process with this exit code most likely ran out of memory: a signal, or 128 + signal from a shell."""
    return -code in SIGNALS or code - 128 in SIGNALS
