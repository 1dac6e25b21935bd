"""A changed, missing or foreign file among the installed packages is named, whatever its package."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from codex_ml.core import installed_files
from codex_ml.core.errors import UserError
from codex_ml.core.installed_files import package_digest, unlike_their_records
from codex_ml.core.packages import metadata_folders


def encoded(data: bytes) -> str:
    return "sha256=" + urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def quoted(name: str) -> str:
    return f'"{name}"' if "," in name else name


class Site:
    """A folder of packages, first and alone in the path of Python, in an environment with scripts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "venv/lib/site-packages"
        self.folder.mkdir(parents=True)
        (folder / "venv/bin").mkdir()

    def install(self, name: str, version: str, files: dict[str, bytes]) -> Path:
        info = self.folder / f"{name}-{version}.dist-info"
        info.mkdir()
        files = {f"{info.name}/INSTALLER": b"pip\n", **files}
        for file, data in files.items():
            path = self.folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        lines = [f"{quoted(file)},{encoded(data)},{len(data)}\n" for file, data in files.items()]
        (info / "RECORD").write_text("".join([*lines, f"{name}/__pycache__/a.pyc,,\n", f"{info.name}/RECORD,,\n"]))
        return info


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(made.folder)])
    monkeypatch.setattr(installed_files, "SCRIPTS", f"{tmp_path}/venv/bin/")
    made.install(
        "mpmath", "1.3.0", {"mpmath/a.py": b"a = 1\n", "../../bin/tool": b"\x7fELF", "../../bin/x": b"#!/v/p\n"}
    )
    made.install("torch", "2.0", {"torch/b.py": b"b = 2\n", "torch/a, b.txt": b""})
    return made


def problems() -> list[str]:
    return unlike_their_records(metadata_folders())[1]


def test_files_as_pip_installed_them_are_in_order(site: Site) -> None:
    (site.folder / "mpmath/__pycache__").mkdir()
    (site.folder / "mpmath/__pycache__/a.pyc").write_bytes(b"byte code")
    (site.folder / "../../bin/x").write_bytes(b"#!/another/folder/python\n")
    assert unlike_their_records(metadata_folders()) == (7, [])


def test_a_changed_file_is_named_with_its_package(site: Site) -> None:
    (site.folder / "mpmath/a.py").write_bytes(b"a = 2\n")
    (site.folder / "../../bin/tool").write_bytes(b"\x7fELG")
    assert problems() == [
        f"mpmath 1.3.0: {site.folder}/mpmath/a.py is not the file that was installed",
        f"mpmath 1.3.0: {site.folder.parents[1]}/bin/tool is not the file that was installed",
    ]


def test_a_missing_file_is_named(site: Site) -> None:
    (site.folder / "torch/b.py").unlink()
    assert problems() == [f"torch 2.0: {site.folder}/torch/b.py is missing"]


@pytest.mark.parametrize("name", ["evil.pth", "sitecustomize.py", "torch/c.py", "torch/native.so", "old.egg-link"])
def test_a_file_that_no_package_brought_is_named(site: Site, name: str) -> None:
    (site.folder / name).write_bytes(b"import os\n")
    assert problems() == [f"{site.folder}/{name} belongs to no installed package"]


def test_a_file_without_a_hash_and_a_package_without_a_list_are_named(site: Site) -> None:
    record = site.folder / "torch-2.0.dist-info/RECORD"
    record.write_text(record.read_text().replace(f"torch/b.py,{encoded(b'b = 2' + bytes([10]))},6", "torch/b.py,,"))
    assert problems() == [f"torch 2.0: {site.folder}/torch/b.py has no hash in RECORD"]
    record.unlink()
    assert problems()[0] == f"torch 2.0: {record} cannot be read"
    with pytest.raises(UserError, match=r"RECORD: No such file or directory; `make packages` builds .venv again$"):
        package_digest(str(record.parent))


def test_the_library_leads_to_this_checkout_and_nowhere_else(site: Site) -> None:
    Path("src").mkdir()
    info = site.install("codex_ml", "0.1.0", {"_codex_ml.pth": str(Path("src").resolve()).encode()})
    assert problems() == []
    (site.folder / "_codex_ml.pth").write_text(f"{Path('src').resolve()}\nimport os\n")
    assert problems() == [f"codex-ml 0.1.0: {site.folder}/_codex_ml.pth does not lead to the src of this folder"]
    assert info.is_dir()


def test_the_digest_of_a_package_is_that_of_its_files_and_not_of_its_place(site: Site, tmp_path: Path) -> None:
    digest = package_digest(str(site.folder / "mpmath-1.3.0.dist-info"))
    other = Site(tmp_path / "elsewhere")
    info = other.install("mpmath", "1.3.0", {"mpmath/a.py": b"a = 1\n", "../../bin/x": b"#!/elsewhere\n",
        "mpmath-1.3.0.dist-info/direct_url.json": b"{}", "mpmath-1.3.0.dist-info/REQUESTED": b""})  # fmt: skip
    assert package_digest(str(info)) == digest
    assert digest == hashlib.sha256(f"mpmath/a.py,{encoded(b'a = 1' + bytes([10]))},6".encode()).hexdigest()
    changed = Site(tmp_path / "changed").install("mpmath", "1.3.0", {"mpmath/a.py": b"a = 3\n"})
    assert package_digest(str(changed)) != digest
