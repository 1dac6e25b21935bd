"""The modules that a program runs first, compiled once per supervisor and handed over with the task.

An interpreter that imports them looks for files, and compiles those without bytecode beside them: 1 to 5 ms per
program. It also would need a mount of this package.

Used by: supervisor.
"""

from __future__ import annotations
import __future__

import marshal
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from codex_ml.sandbox import guest, plain_values

# The text of `python -c`. The modules get their usual names, so that their imports of each other find them.
LOAD = """def load():
    import marshal, sys
    parts, task = marshal.loads(sys.stdin.buffer.read())
    package = sys.modules["codex_ml"] = type(sys)("codex_ml")
    package.sandbox = sys.modules["codex_ml.sandbox"] = type(sys)("codex_ml.sandbox")
    for name, code in marshal.loads(parts):
        module = sys.modules[name] = type(sys)(name)
        setattr(package.sandbox, name.rpartition(".")[2], module)
        exec(code, module.__dict__)
    module.main(task)
load()"""
FUTURE = "from __future__ import annotations\n"  # a flag of the compiler says the same without a file to read


def compiled(module: ModuleType) -> bytes:
    """Return a guest and the modules that it imports, as `LOAD` reads them; `module` comes last."""
    return marshal.dumps([_part(part) for part in (plain_values, guest, module)])


def task_file(parts: bytes, task: dict[str, Any]) -> int:
    """Return the descriptor of a memory file with the guest and its task, positioned at its start."""
    return memory_file("task", marshal.dumps((parts, task)))


def memory_file(name: str, content: bytes) -> int:
    """Return the descriptor of a new memory file, positioned at its start; a program that is started closes it."""
    descriptor = os.memfd_create(name)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _part(module: ModuleType) -> tuple[str, Any]:
    text = Path(str(module.__file__)).read_text("utf-8")
    flag = __future__.annotations.compiler_flag
    return module.__name__, compile(text.replace(FUTURE, "\n"), module.__name__, "exec", flag, dont_inherit=True)
