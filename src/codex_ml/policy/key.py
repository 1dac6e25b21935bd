"""The secret key of the placeholders. A person who has it can check whether a guessed value gives a placeholder.

The repository publishes a key for its public sample. DVC tracks a private key, like the raw data: `dvc push` gives it
to those who get the data, `dvc exp run --temp` finds it, and it is never in Git.
Used by: split, `codex-ml check`, `codex-ml policy new-key`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from codex_ml.core.errors import UserError
from codex_ml.core.io import write_bytes

KEY = Path("data/redaction_key")
FEWEST_BYTES = 16
SAMPLE = "data/raw/sample"
# SHA-256 of the key that this repository publishes; anyone can read that key in the history of Git.
PUBLISHED = "75428f08e2fe45c2b1fc669bb7ec13f5b737d70fca174b28a8c481128603e842"


def read_key(path: Path) -> bytes:
    """The secret of the placeholders: 32 bytes, the SHA-256 of the file without white space at its ends.

    Raises:
        UserError: when the file is missing, or too short to be a secret.
    """
    text = path.read_bytes().strip() if path.is_file() else b""
    if not path.is_file() and _pointer(path).is_file():
        raise UserError(f"{path} is missing; `dvc pull {_pointer(path)}` fetches it")
    if len(text) < FEWEST_BYTES:
        found = f"holds {len(text)} characters" if path.is_file() else "is missing"
        raise UserError(f"{path} {found}; `codex-ml policy new-key` writes a private key of 64 random characters")
    return hashlib.sha256(text).digest()


def warning(key: Path, sources: Iterable[str]) -> str:
    """A warning of one line when the published key redacts a source that is not the sample, else ""."""
    own = next((source for source in sources if not Path(source).is_relative_to(SAMPLE)), None)
    if own is None or not key.is_file() or read_key(key).hex() != PUBLISHED:
        return ""
    return (
        f"{own} is your own data, but {key} is the public key of this repository: anyone who guesses a redacted value "
        "can confirm the guess; run `codex-ml policy new-key`, which makes a private key"
    )


def make_private_key() -> None:
    """Write a new key to data/redaction_key (mode 0600), remove the file from Git's index, and let DVC track it.

    Raises:
        UserError: when the key of this repository is already private, here or in DVC's remote, because a new key would
            change every placeholder; also when Git or DVC refuse. The file is then unchanged.
    """
    private = KEY.is_file() and hashlib.sha256(KEY.read_bytes().strip()).hexdigest() != PUBLISHED
    absent = not KEY.is_file() and _pointer(KEY).is_file()  # a clone before `dvc pull`
    if private or absent:
        found = f"is private already, and `dvc pull {_pointer(KEY)}` fetches it" if absent else "is private already"
        raise UserError(
            f"{KEY} {found}; another key changes every placeholder; to have that, remove {KEY} and {_pointer(KEY)}, "
            "and run this command again"
        )
    before = KEY.read_bytes() if KEY.is_file() else None
    _run("git", "rm", "--quiet", "--cached", "--ignore-unmatch", "--", KEY.as_posix())
    try:
        _write_private(secrets.token_hex(32).encode() + b"\n")
        _run(sys.executable, "-P", "-m", "dvc", "add", "--quiet", KEY.as_posix())
        if not KEY.is_symlink() and KEY.stat().st_nlink == 1:  # a copy that DVC made; a link belongs to the cache
            KEY.chmod(0o600)
    except BaseException:
        KEY.unlink(missing_ok=True)
        if before is not None:
            write_bytes(KEY, before)
            _run("git", "add", "--force", "--", KEY.as_posix())  # `dvc add` may have added it to .gitignore
        raise


def _write_private(data: bytes) -> None:
    """Write the key so that only its owner can ever read it. The umask is set back, because DVC makes folders too."""
    umask = os.umask(0o077)
    try:
        write_bytes(KEY, data)
    finally:
        os.umask(umask)


def _pointer(key: Path) -> Path:
    """The file that `dvc add` writes beside the key. Every clone has it; `dvc pull` then fetches the key."""
    return key.parent / f"{key.name}.dvc"


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    except FileNotFoundError:
        raise UserError(f"{command[0]} is not installed; a private key needs Git and DVC") from None
    if done.returncode:
        raise UserError(f"`{' '.join(command[-4:])}` failed: {' '.join((done.stderr or done.stdout).split())}")
