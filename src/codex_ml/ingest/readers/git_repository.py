"""Read the files of a Git repository at one revision from its objects: no work tree, no configuration, no program runs.

Git itself runs programs that a repository's configuration names: core.fsmonitor, hooks, filters, textconv, a pager. So
this module reads refs as plain files (gitrepository-layout(5)), and dulwich reads objects from one folder only.
Used by: ingest.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dulwich.refs import check_ref_format

from codex_ml.core.errors import Reason, UserError, naming, reason_of
from codex_ml.core.globs import expand_glob
from codex_ml.core.tree import rules_for, stands_for
from codex_ml.documents.document import Document, Refused, writable
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers.git_objects import BLOB, COMMIT, TAG, Damaged, Objects, object_size, read_object, walk_tree
from codex_ml.ingest.readers.name_globs import NameGlobs
from codex_ml.ingest.readers.origin import Origin
from codex_ml.ingest.readers.tasks import Content, Context, ReadTask

TASK_BYTES, TASK_BLOBS = 4 << 20, 4096
REF_LIMIT, PACKED_REFS_LIMIT = 4096, 64 << 20  # bytes
HASH = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class GitTask(ReadTask):
    """Some blobs of a commit.

    Attributes:
        objects: the folder of the repository's objects.
        label: source of the documents, "source@commit".
        blobs: (path in the tree, id) of each blob.
    """

    objects: str
    label: str
    blobs: tuple[tuple[Content, Content], ...]

    def read(self) -> Iterator[Document | Refused]:
        """Documents in the order of their paths."""
        store, origin = Objects(self.objects), git_origin(self.context, self.label)
        try:
            for path, name in self.blobs:
                yield _read_blob(store, origin, os.fsdecode(path), name)
        finally:
            store.close()


def git_origin(context: Context, label: str) -> Origin:
    """What the documents of a commit have in common. All commits of one repository are one group."""
    return Origin(context, label, context.source.licence, context.source.label)


def _read_blob(store: Objects, origin: Origin, path: str, name: bytes) -> Document | Refused:
    max_bytes = origin.max_bytes
    try:
        size = object_size(store, name)
        if size is not None and size > max_bytes:
            return origin.refused(path, Reason("longer than {} bytes", max_bytes), bad=False)
        kind, data = read_object(store, name)
    except Damaged as error:
        return origin.refused(path, reason_of(error), bad=True)
    if kind != BLOB:
        return origin.refused(path, Reason("object {} is not a blob", name.decode()), bad=True)
    return origin.document(path, data)


def plan_git(context: Context) -> Iterator[GitTask | Refused]:
    """Cut the blobs of `source.revision` into tasks of about 4 MiB, sorted by path.

    The repository may be a work tree with .git, or bare.

    Raises:
        UserError: when there is no repository, it borrows objects from another one, or the revision is unknown.
    """
    source = context.source
    repository = _repository(source, Path(context.path))
    names, store = NameGlobs.of(source), Objects(repository / "objects")
    batch: list[tuple[bytes, bytes]] = []
    held = 0
    try:
        commit, tree = _commit(source, repository, store)
        label = f"{source.label}@{commit[:12].decode()}"
        origin = git_origin(context, label)

        def task() -> GitTask:
            return GitTask(context, held, str(repository / "objects"), label, tuple(batch))

        for path, mode, name, reason in walk_tree(store, tree):
            shown = os.fsdecode(path)
            if not names.accepts(shown):
                continue
            if reason or not stat.S_ISREG(mode):
                why = reason or ("a submodule" if stat.S_IFMT(mode) == 0o160000 else "not a regular file")
                yield origin.refused(shown, why, bad=bool(reason))
                continue
            size = _size(store, name)
            if size is None and not is_hashed(repository):
                raise Damaged(f"object {name.decode()} is missing (a shallow, partial or damaged clone)")
            batch.append((path, name))
            held += min(size or 0, context.max_bytes)
            if held >= TASK_BYTES or len(batch) >= TASK_BLOBS:
                yield task()
                batch, held = [], 0
        if batch:
            yield task()
    except Damaged as error:
        raise UserError(f"ingest.sources: {source.path}: {error}; `git fsck` says more") from None
    finally:
        store.close()


def _size(store: Objects, name: bytes) -> int | None:
    try:
        return object_size(store, name)
    except Damaged:
        return 0  # the worker refuses the file, with the reason


# --- the revision


def refuse_moving_revision(source: Source) -> None:
    """Refuse a revision that could change its meaning without a change of a hash.

    DVC does not hash `.git`, so it does not notice when a branch, a tag or HEAD moves there. It hashes a bare
    repository such as project.git with its refs. In any other repository the revision must be a whole commit id.

    Raises:
        UserError: names the commit that the revision means at the moment.
    """
    if source.kind != "git" or HASH.fullmatch(source.revision.lower()):
        return
    for folder in [Path(source.path)] if Path(source.path).is_dir() else expand_glob(source.path):
        repository = _repository(source, folder)
        if is_hashed(repository):
            continue
        store = Objects(repository / "objects")
        try:
            commit, _ = _commit(source, repository, store)
        except Damaged as error:
            raise UserError(f"ingest.sources: {source.path}: {error}; `git fsck` says more") from None
        finally:
            store.close()
        raise UserError(
            f"ingest.sources: {source.path}: DVC does not hash a .git folder, so it would not notice when "
            f"{source.revision} moves; write `revision: {commit.decode()}`, which it means now, or read a "
            "bare repository (git clone --bare), which DVC hashes as a whole"
        )


def is_hashed(repository: Path) -> bool:
    """Whether DVC hashes the branches and tags of a Git repository, so that it notices when one of them moves."""
    rules, prefix = rules_for(repository)
    if ".git" in repository.parts or (prefix and rules.ignores(prefix.rstrip("/"), is_folder=True)):
        return False
    refs = repository / "refs"
    places = [repository / "HEAD", repository / "packed-refs", refs, *refs.rglob("*")]
    return not any(
        rules.ignores(prefix + place.relative_to(repository).as_posix(), is_folder=place.is_dir()) for place in places
    )


# --- the repository


def _repository(source: Source, folder: Path) -> Path:
    """The folder that holds HEAD, objects and refs; raises UserError for a repository that cannot be read safely."""
    where = f"ingest.sources: {source.path}"
    inner = folder / ".git"
    if inner.is_file():
        raise UserError(f"{where} is a linked work tree or a submodule; name the main repository instead")
    repository = inner if inner.is_dir() else folder
    if (repository / "commondir").exists():
        raise UserError(f"{where} belongs to a linked work tree; name the main repository instead")
    if not (repository / "HEAD").is_file() or not (repository / "objects").is_dir():
        raise UserError(
            f"{where} is not a Git repository; `kind: git` reads a work tree with .git, or a bare repository"
        )
    if any((repository / name).is_symlink() for name in ("", "objects", "objects/info", "objects/pack")):
        raise UserError(f"{where} keeps its objects behind a link; clone it to a folder of its own")
    if _holds_links(repository / "objects"):
        raise UserError(f"{where} keeps objects behind links; clone it to a folder of its own")
    if _text(repository / "objects/info/alternates", 1):
        raise UserError(f"{where} borrows objects from another repository (objects/info/alternates); `git repack -a` "
                        "and delete that file, or clone it without --shared and --reference")  # fmt: skip
    if (repository / "reftable").is_dir():
        raise UserError(f"{where} keeps its refs as reftable; `git refs migrate --ref-format=files` makes files")
    return repository


def _holds_links(objects: Path) -> bool:
    """Whether a pack or a folder of loose objects is a link, or a FIFO, which would block.

    A link into DVC's cache is allowed: it counts as the file there.
    """
    packs = objects / "pack"
    entries = [*os.scandir(objects), *(os.scandir(packs) if packs.is_dir() else ())]
    modes = (stands_for(Path(entry.path)).lstat().st_mode for entry in entries)
    return not all(stat.S_ISREG(mode) or stat.S_ISDIR(mode) for mode in modes)


def _text(file: Path, limit: int) -> str:
    """The first `limit` bytes of a regular file as text; "" for a link, a FIFO, or a missing file."""
    try:
        handle = os.open(stands_for(file), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ValueError):
        return ""
    with naming(file), os.fdopen(handle, "rb") as opened:
        return os.fsdecode(opened.read(limit)) if stat.S_ISREG(os.fstat(handle).st_mode) else ""


def _packed_refs(repository: Path) -> dict[str, str]:
    found = {}
    for line in _text(repository / "packed-refs", PACKED_REFS_LIMIT).split("\n"):
        name, _, ref = line.partition(" ")
        if HASH.fullmatch(name):
            found[ref] = name
    return found


def _ref(repository: Path, ref: str, packed: dict[str, str]) -> str | None:
    """The id that a ref names; symbolic refs are followed. None for a ref that does not exist."""
    for _ in range(5):  # Git's limit
        if ref != "HEAD" and not (ref.startswith("refs/") and check_ref_format(os.fsencode(ref))):  # type: ignore[arg-type]
            return None
        content = _text(repository / ref, REF_LIMIT).strip() or packed.get(ref, "")
        if not content.startswith("ref:"):
            return content if HASH.fullmatch(content) else None
        ref = content.removeprefix("ref:").strip()
    return None


def _revision(source: Source, repository: Path, store: Objects) -> bytes:
    """The id of a branch, tag, HEAD or hash, in the order of gitrevisions(7)."""
    revision, packed = source.revision, _packed_refs(repository)
    if HASH.fullmatch(revision.lower()):
        return revision.lower().encode()
    names = [revision] if revision == "HEAD" or revision.startswith("refs/") else [f"refs/{revision}"]
    names += [f"refs/{kind}/{revision}" for kind in ("tags", "heads", "remotes")] + [f"refs/remotes/{revision}/HEAD"]
    for name in names:
        if found := _ref(repository, name, packed):
            return found.encode()
    if re.fullmatch("[0-9a-fA-F]{4,39}", revision):
        ids = [*_with_prefix(store, revision.lower().encode())]
        if len(ids) == 1:
            return ids[0]
        if ids:
            raise UserError(
                f"ingest.sources: {source.path}: {len(ids)} commits begin with {revision}; give more digits"
            )
    branches = _branches(repository, packed)
    listed = ", ".join(branches[:10]) + (f" and {len(branches) - 10} more" if len(branches) > 10 else "")
    raise UserError(
        f"ingest.sources: {source.path} has no revision {revision}; its branches: {listed or 'none, it has no commit'}"
    )


def _with_prefix(store: Objects, prefix: bytes) -> Iterator[bytes]:
    for name in store.iter_prefix(prefix):
        if HASH.fullmatch(name.decode()) and read_object(store, name)[0] in (COMMIT, TAG):
            yield name


def _branches(repository: Path, packed: dict[str, str]) -> list[str]:
    heads = repository / "refs/heads"
    loose = {path.relative_to(heads).as_posix() for path in heads.rglob("*") if path.is_file()}
    return sorted(map(writable, loose | {ref[11:] for ref in packed if ref.startswith("refs/heads/")}))


def _commit(source: Source, repository: Path, store: Objects) -> tuple[bytes, bytes]:
    """(id of the commit, id of its tree); a tag is followed to its commit."""
    name = _revision(source, repository, store)
    for _ in range(10):  # a tag can name another tag
        kind, data = read_object(store, name)
        head = re.match(rb"(tree|object) ([0-9a-f]{40})\n", data)
        if kind == COMMIT and head and head[1] == b"tree":
            return name, head[2]
        if kind != TAG or not head or head[1] != b"object":
            break
        name = head[2]
    raise UserError(f"ingest.sources: {source.path}: revision {source.revision} names no commit")
