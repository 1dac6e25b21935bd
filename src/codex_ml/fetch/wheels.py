"""Download wheels with pip, pinned by name, version and SHA-256. Nothing is built or installed.

Used by: stages/fetch.py, fetch.members.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

from codex_ml.core.errors import CheckFailed, disk_error_in
from codex_ml.core.hashing import sha256_of
from codex_ml.core.io import atomic_folder
from codex_ml.core.lock import one_at_a_time
from codex_ml.fetch.pins import Pin

log = logging.getLogger("codex_ml")

STORE_IN_USE = "uses the same store of downloads"
USERINFO = re.compile(r"(?<=://)[^/\s]*@")  # up to the last @, because a password may hold one


def fetch_wheels(pins: list[Pin], *, into: Path, store: Path) -> int:
    """Put the pinned wheels into the folder `into`; download only those that neither `store` nor `into` holds.

    Experiments in temporary copies share the store, so only one process at a time uses it.

    Args:
        store: scratch folder that outlives the output; it holds `<sha256>/<file name>`.

    Returns:
        number of wheels that were downloaded.

    Raises:
        CheckFailed: when a download has a wrong hash (nothing is written), or pip fails.
    """
    with one_at_a_time(store.with_suffix(".lock"), "fetch", STORE_IN_USE):
        present = {pin: wheel for pin in pins if (wheel := _present(pin, into))}
        stored, downloaded = stored_wheels([pin for pin in pins if pin not in present], store)
        with atomic_folder(into) as folder:
            for pin in pins:
                wheel = stored.get(pin) or present[pin]
                shutil.copyfile(wheel, folder / wheel.name)
    return downloaded


def stored_wheels(pins: list[Pin], store: Path) -> tuple[dict[Pin, Path], int]:
    """The wheels in the store, downloaded where they are missing or damaged, and the number of downloads.

    The caller holds the lock of the store. Raises as `fetch_wheels` does.
    """
    have = {pin: wheel for pin in pins if (wheel := _stored(pin, store))}
    missing = [pin for pin in pins if pin not in have]
    if missing:
        log.info("fetch: downloading %d of %d wheels", len(missing), len(pins))
        with atomic_folder(store / "incoming") as incoming:
            _download(missing, incoming)
            downloads = {pin: _verified(pin, incoming) for pin in missing}
            for pin, wheel in downloads.items():
                with atomic_folder(store / pin.sha256) as folder:
                    shutil.copyfile(wheel, folder / wheel.name)
                have[pin] = store / pin.sha256 / wheel.name
        shutil.rmtree(store / "incoming")
    return have, len(missing)


def _stored(pin: Pin, store: Path) -> Path | None:
    for wheel in (store / pin.sha256).glob("*.whl"):
        if pin.is_wheel(wheel.name) and sha256_of(wheel) == pin.sha256:
            return wheel
        log.warning("fetch: %s in the download store is damaged; downloading it again", wheel.name)
    return None


def _present(pin: Pin, folder: Path) -> Path | None:
    wheels = (wheel for wheel in folder.glob("*.whl") if pin.is_wheel(wheel.name))
    return next((wheel for wheel in wheels if sha256_of(wheel) == pin.sha256), None)


def _verified(pin: Pin, folder: Path) -> Path:
    wheels = [wheel for wheel in folder.iterdir() if pin.is_wheel(wheel.name)]
    if len(wheels) != 1:
        raise CheckFailed(f"{pin}: pip downloaded no pure-Python wheel of this release")
    found = sha256_of(wheels[0])
    if found != pin.sha256:
        raise CheckFailed(f"{pin}: wrong hash, nothing was written; pinned sha256 {pin.sha256}, downloaded {found}")
    return wheels[0]


def _download(pins: list[Pin], folder: Path) -> None:
    rest = list(pins)
    while rest:  # one call of pip cannot download two releases of one name
        batch = list({pin.name: pin for pin in reversed(rest)}.values())
        rest = [pin for pin in rest if pin not in batch]
        command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--no-input", "--disable-pip-version-check", "--dest", str(folder), *map(str, batch)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
        )
        if done.returncode:
            if disk := disk_error_in(done.stderr, str(folder)):
                raise disk
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            reason = USERINFO.sub("", errors[-1]) if errors else f"exit code {done.returncode}"
            raise CheckFailed(f"pip could not download the sample ({reason}); is a package index reachable?")
