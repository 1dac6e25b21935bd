"""Put the endpoint together: token, policy, model or upstream, server.

Used by: `codex-ml serve`.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from codex_ml.core.errors import CheckFailed, UserError, safe_text, safe_words
from codex_ml.core.packages import install_extra

if TYPE_CHECKING:
    from codex_ml.serve.api_counters import Counters
    from codex_ml.serve.endpoint_app import Backend
    from codex_ml.serve.limits import ServeLimits
    from codex_ml.serve.prompt_encoder import Served
    from codex_ml.serve.screening import Screening

TOKEN = "CODEX_ML_TOKEN"  # noqa: S105 - the name of a variable
SHORTEST = 16  # characters of a token
LONGEST = 4096
GRACE = 30.0  # seconds for what runs at the end; less if requests have less


@dataclass(frozen=True)
class Options:
    """The command line of `codex-ml serve`; paths are relative to the top folder."""

    model: Path | None
    upstream: str | None
    host: str
    port: int
    token_file: Path | None
    upstream_token_file: Path | None
    max_batch: int
    max_queue: int
    threads: int
    timeout: float
    max_body: int
    policy: bool


def serve_until_stopped(options: Options, *, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        say: is called with one line at a time.

    Raises:
        UserError: for a missing extra, a token that is missing or too short, a port that is taken, a model or policy
            that cannot be used.
        CheckFailed: when requests had to be cut off at the end.
    """
    refuse_missing_extra()
    from codex_ml.serve.api_counters import Counters
    from codex_ml.serve.door import Door
    from codex_ml.serve.endpoint_app import EndpointApp
    from codex_ml.serve.http_server import is_loopback, open_socket, run_server
    from codex_ml.serve.limits import ServeLimits

    token = read_token(options.token_file, "--token-file") or environment_token()
    if not is_loopback(options.host) and token is None:
        raise UserError(
            f"other machines can reach --host {options.host}, so clients must show a token; write one of at least "
            f"{SHORTEST} characters into a file and name it with --token-file, or set {TOKEN}"
        )
    counters = Counters()
    limits = ServeLimits(options.max_batch, options.max_queue, options.timeout, options.max_body)
    with open_socket(options.host, options.port) as opened:  # before the model is loaded, which takes longer
        screening = load_screening(counters, policy=options.policy)
        start, what = _backend(options, screening, limits)
        _log_to_screen()
        if screening.screen is None:
            say("WARNING: --no-policy: prompts and answers are NOT filtered; what the model learnt by heart can leave")
        app = EndpointApp(start, Door(token, options.host, limits), limits, counters).build()
        run_server(app, opened, grace=min(GRACE, options.timeout), ready=lambda url: say(f"serving {what} at {url}"))
        say("stopped")


def refuse_missing_extra() -> None:
    """Refuse to start without the packages of the extra `serve`.

    Raises:
        UserError: naming the command that installs them.
    """
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"codex-ml serve needs {' and '.join(missing)}; {install_extra('serve')}")


def read_token(file: Path | None, option: str) -> str | None:
    """The token in a file, without white space at its ends; None without a file.

    Raises:
        UserError: when it is not one line of 16 to 4096 visible ASCII characters. The message does not show it.
    """
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            data = opened.read(LONGEST + 2)
    except OSError as error:
        raise UserError(f"{option} {file} cannot be read ({error.strerror})") from None
    return _checked_token(data, f"{option} {file}")


def environment_token() -> str | None:
    """The token of the environment variable; it is then removed from the environment of this process."""
    value = os.environ.pop(TOKEN, None)
    return None if value is None else _checked_token(os.fsencode(value), f"the variable {TOKEN}")


def _checked_token(data: bytes, name: str) -> str:
    token = data.strip()
    if not SHORTEST <= len(token) <= LONGEST or any(not 33 <= byte < 127 for byte in token):
        raise UserError(
            f"{name} must hold one token of {SHORTEST} to {LONGEST} visible ASCII characters; make one with: "
            'python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    return token.decode("ascii")


def load_screening(counters: Counters, *, policy: bool) -> Screening:
    """The text policy of the repository, or none.

    Raises:
        UserError: when the policy cannot be used.
    """
    from codex_ml.cli.unchanged_files import UnchangedFiles
    from codex_ml.core.plugin_lock import lock_path
    from codex_ml.policy.filters import load_filter
    from codex_ml.policy.key import KEY
    from codex_ml.policy.rules import POLICY
    from codex_ml.serve.screening import Screening

    if not policy:
        return Screening(None, None, counters)
    rules = UnchangedFiles(POLICY)
    return Screening(load_filter(POLICY, lock_path("detectors"), KEY), rules.digest(), counters)


def _backend(options: Options, screening: Screening, limits: ServeLimits) -> tuple[Callable[[], Backend], str]:
    """What makes the backend once the event loop runs, and its name."""
    if options.upstream is not None:
        from codex_ml.serve.upstream import UpstreamModel
        from codex_ml.serve.upstream_client import upstream_address

        address = upstream_address(options.upstream, read_token(options.upstream_token_file, "--upstream-token-file"))
        allow_only(address.ip)
        return lambda: UpstreamModel(address, screening, limits), f"a filter of http://{address.host}"
    if options.upstream_token_file is not None:
        raise UserError("--upstream-token-file is for --upstream; name that endpoint too")
    from codex_ml.serve.own_model import LocalModel

    served = load_served(options.model or Path("models/model"), threads=options.threads)
    return lambda: LocalModel(served, screening, limits), f"model {served.digest}"


def load_served(path: Path, *, threads: int) -> Served:
    """Load a model of any origin, offline.

    Args:
        threads: of torch, on a CPU; 0: as in training, or all cores.

    Raises:
        UserError: when it cannot be used.
    """
    from codex_ml.cli.measure_model import go_offline
    from codex_ml.cli.measure_options import naming_options
    from codex_ml.cli.model_and_data import ModelChoice, load_any_model
    from codex_ml.cli.param_rules import load_params
    from codex_ml.cli.scratch_folder import scratch_folder
    from codex_ml.cli.unchanged_files import UnchangedFiles
    from codex_ml.serve.prompt_encoder import Served
    from codex_ml.tokens.chat import turn_ends

    go_offline()
    files = UnchangedFiles(path)
    with scratch_folder() as scratch, naming_options({"model.path": "--model"}):
        loaded = load_any_model(ModelChoice(path, None, "fp32"), load_params().runtime, None, scratch)
    if threads:
        import torch

        torch.set_num_threads(threads)
    own = loaded.model.config.eos_token_id
    listed = own if isinstance(own, list) else [own] if own is not None else []
    ends = tuple(sorted({*turn_ends(loaded.tokenizer), *listed}))
    context = loaded.length if loaded.training else None  # the model has seen no later position in training
    return Served(loaded.model, loaded.tokenizer, files.digest(), ends, context)


def allow_only(ip: str) -> None:
    """Let this process reach one address and no other."""

    def refuse_others(event: str, arguments: tuple[object, ...]) -> None:
        place = arguments[1] if event == "socket.connect" else None
        if isinstance(place, tuple) and place[0] != ip:
            raise CheckFailed(f"this server tried to reach {place[0]}; it may reach --upstream only")

    sys.addaudithook(refuse_others)


class _LogLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        shown = super().format(record)
        return safe_text(shown) if record.exc_info else safe_words(shown)


def _log_to_screen() -> None:
    log = logging.getLogger("codex_ml")
    handler = logging.StreamHandler()
    handler.setFormatter(_LogLine("%(asctime)s %(message)s"))
    log.handlers[:], log.propagate = [handler], False
    log.setLevel(logging.INFO)
