"""Find the changed file in a folder of which dvc.lock has only the hash of the whole folder."""

from __future__ import annotations

from pathlib import Path

from codex_ml.core.errors import UserError
from codex_ml.core.hashing import hash_file, hash_path
from codex_ml.core.pipeline import Locked
from codex_ml.core.record import read_record
from codex_ml.core.strict_json import parse_json
from codex_ml.core.tree import cache_folder, scan
from codex_ml.core.yaml import read_yaml


def changed_file(path: str, md5: str, lock: dict[str, Locked], files: dict[str, str] | None = None) -> str:
    """Name the first file of folder `path` that changed since the folder had the hash `md5`.

    DVC's list of the folder names all its files. Without it, dvc.lock and the records of the stages name those that are
    inputs or outputs by themselves, such as data/splits/train.parquet, and .dvc files those that `dvc add` tracks.

    Args:
        files: relative path -> MD5 of the files of the folder when it had that hash, from a record; DVC has no list of
            a folder of code.

    Returns:
        the path of the file, with "(missing)" or "(added)" where that applies; `path` itself if the file is unknown.
    """
    folder = Path(path)
    if not folder.is_dir():
        return path
    listing = files or listing_of(md5)
    if listing is None:
        for inner, digest in {**_known_alone(path, lock), **_added_alone(folder)}.items():
            if not Path(inner).exists():
                return f"{inner} (missing)"
            if hash_path(Path(inner)).md5 != digest:
                return changed_file(inner, digest, lock)
        return path
    now = {entry.name for entry in scan(folder) if entry.is_file and not entry.problem}
    for name, digest in listing.items():
        if name not in now:
            return f"{path}/{name} (missing)"
        if hash_file(folder / name).md5 != digest:
            return f"{path}/{name}"
    added = sorted(now - listing.keys())
    return f"{path}/{added[0]} (added)" if added else path


def listing_of(md5: str) -> dict[str, str] | None:
    """Relative path -> MD5 of the files of a folder, from DVC's cache; None when it has no intact list of that hash."""
    data = cached(md5) if md5.endswith(".dir") else None
    return None if data is None else {entry["relpath"]: entry["md5"] for entry in parse_json(data)}


def cached(md5: str) -> bytes | None:
    """The bytes of a file, or of DVC's list of a folder, in DVC's cache; None when it has none that is intact."""
    file = cached_file(md5)
    return None if file is None else file.read_bytes()


def cached_file(md5: str) -> Path | None:
    """Where DVC's cache has a file, or its list of a folder; None when it has none that is intact."""
    try:
        cache = cache_folder()
    except UserError:  # of DVC's configuration, which DVC itself names
        return None
    file = Path(cache or "") / "files/md5" / md5[:2] / md5[2:]
    if cache is None or not file.is_file() or hash_file(file).md5 != md5.removesuffix(".dir"):
        return None
    return file


def _known_alone(folder: str, lock: dict[str, Locked]) -> dict[str, str]:
    """Path -> MD5 of what lies in a folder and is a dep or an out of a stage by itself."""
    known = {path: md5 for locked in lock.values() for path, md5 in {**locked.outs, **locked.deps}.items()}
    for stage in lock:
        try:
            known |= {path: dep["md5"] for path, dep in read_record(stage)["deps"].items()}
        except UserError:  # this record is damaged or missing; others may know
            continue
    return {path: md5 for path, md5 in known.items() if path != folder and Path(path).is_relative_to(folder)}


def _added_alone(folder: Path) -> dict[str, str]:
    """Path -> MD5 of what `dvc add` tracks inside a folder, from the .dvc files there."""
    added = {}
    for pointer in sorted(folder.rglob("*.dvc")):
        try:
            document = read_yaml(pointer)
        except (UserError, OSError):  # then the message names the folder only
            continue
        for out in (document.get("outs") if isinstance(document, dict) else None) or ():
            if isinstance(out, dict) and all(isinstance(out.get(key), str) for key in ("path", "md5")):
                added[(pointer.parent / out["path"]).as_posix()] = out["md5"]
    return added
