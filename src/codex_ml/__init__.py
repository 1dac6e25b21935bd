"""codex-ml: declarative, DVC-versioned training, evaluation and safety audit of language models, offline."""

import sys
from importlib.machinery import PathFinder

from codex_ml.core.start_failure import show_failure

__version__ = "0.1.0"

# DVC starts a stage as `python -P stages/...`, which is another Python where the environment is not active. Each stage
# and command imports this package first, so that Python says one line instead of the traceback of a missing module.
if sys.version_info < (3, 11) or PathFinder.find_spec("pydantic") is None:
    lack = "is older than 3.11" if sys.version_info < (3, 11) else "has no pydantic"
    advice = "type `make repro`, or `. .venv/bin/activate` first"
    print(f"error: this Python ({sys.executable}) {lack}; {advice}", file=sys.stderr)
    sys.exit(2)
if sys.excepthook is sys.__excepthook__:  # a debugger or a notebook may have its own
    sys.excepthook = show_failure
