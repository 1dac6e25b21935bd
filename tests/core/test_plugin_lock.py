"""The code of a plug-in is a dependency: changed code is refused until its lock records it. Shown with a detector."""

from __future__ import annotations

import importlib
import os
import py_compile
import subprocess
import sys
from importlib.util import cache_from_source, spec_from_file_location
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest

from codex_ml.cli.checks.workspace import problems
from codex_ml.cli.param_rules import load_params
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.pipeline import load_pipeline
from codex_ml.core.plugin_lock import lock_of, lock_path, locked_names, refuse_other_code, write_lock
from codex_ml.core.plugins import UnusablePlugin, find
from codex_ml.core.yaml import read_yaml

DETECTORS = lock_path("detectors")

CODE = '''\
"""Finds the name of one person."""

from .words import WORDS

def find(text):
    return [("person", text.index(word), text.index(word) + len(word)) for word in WORDS if word in text]
'''


class Plugin:
    """An installed distribution, as pip leaves it: a package, and a .dist-info folder with its RECORD."""

    def __init__(self, site: Path, name: str = "person-finder", package: str = "person_finder") -> None:
        self.site, self.name, self.package = site, name, package
        self.files = {
            f"{package}/__init__.py": CODE,
            f"{package}/words.py": 'WORDS = ("Jane Roe",)\n',
            f"{package}/data/model.bin": "weights",
        }

    def install(self, version: str = "1.0", entry: str = "", **others: str) -> None:
        info = f"{self.name.replace('-', '_')}-{version}.dist-info"
        for old in self.site.glob(f"{self.name.replace('-', '_')}-*.dist-info/*"):
            old.unlink()
        for old in self.site.glob(f"{self.name.replace('-', '_')}-*.dist-info"):
            old.rmdir()
        metadata = {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {version}\n",
            f"{info}/entry_points.txt": f"[codex_ml.detectors]\nmine = {entry or self.package + ':find'}\n",
            **others,
        }
        listed = [*self.files, *metadata, f"{info}/RECORD", f"../bin/{self.name}"]
        metadata[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in listed)
        for file, text in (self.files | metadata).items():
            (self.site / file).parent.mkdir(parents=True, exist_ok=True)
            (self.site / file).write_text(text)
        importlib.invalidate_caches()


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    plugin = Plugin(site)
    plugin.install()
    yield plugin
    for name in [name for name in sys.modules if name.split(".")[0] == plugin.package]:
        del sys.modules[name]


@pytest.fixture
def locked(plugin, tmp_path):
    """The lock of the plugin, and the check against it."""
    path = tmp_path / "detectors.lock"
    write_lock("detectors", ["mine"], path)
    return lambda: refuse_other_code("detectors", ["mine"], path)


def test_the_lock_holds_what_is_installed(plugin, locked, tmp_path):
    locked()
    (entry,) = read_yaml(tmp_path / "detectors.lock")["detectors"]
    assert {key: entry[key] for key in ("name", "distribution", "version", "object")} == {
        "name": "mine", "distribution": "person-finder", "version": "1.0", "object": "person_finder:find",
    }  # fmt: skip
    assert len(entry["sha256"]) == 64
    assert locked_names("detectors", tmp_path / "detectors.lock") == ["mine"]


CHANGES = {
    "code": lambda p: p.files.update({f"{p.package}/words.py": 'WORDS = ("Jane Roe", "John Doe")\n'}),
    "a comment": lambda p: p.files.update({f"{p.package}/__init__.py": CODE + "# one\n"}),
    "data": lambda p: p.files.update({f"{p.package}/data/model.bin": "other weights"}),
    "a new file": lambda p: p.files.update({f"{p.package}/more.py": ""}),
    "a file that nothing lists": lambda p: (p.site / p.package / "patch.py").write_text("x = 1\n"),
    "a renamed file": lambda p: (p.site / p.package / "words.py").rename(p.site / p.package / "word.py"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_named(plugin, locked, change):
    CHANGES[change](plugin)
    if change != "a renamed file":
        plugin.install()
    with pytest.raises(UserError) as error:
        locked()
    message = str(error.value)
    assert message.startswith("detector 'mine': ")
    assert " has sha256 " in message and "(person-finder 1.0); run `codex-ml plugins lock` and commit" in message
    assert "\n" not in message


def test_another_version_package_or_object_is_named(plugin, locked):
    plugin.install("1.1")
    with pytest.raises(UserError, match=r"has version 1\.0, installed is 1\.1 \(person-finder 1\.1\)"):
        locked()
    plugin.install("1.0", entry="person_finder.words:WORDS")
    with pytest.raises(UserError, match=r"has object person_finder:find, installed is person_finder\.words:WORDS"):
        locked()


def test_files_of_pip_and_caches_of_python_are_not_hashed(plugin, locked):
    info = next(plugin.site.glob("*.dist-info"))
    (info / "INSTALLER").write_text("another\n")
    (info / "direct_url.json").write_text('{"url": "file:///elsewhere"}')
    (plugin.site / plugin.package / "__pycache__").mkdir(exist_ok=True)
    (plugin.site / plugin.package / "__pycache__/words.cpython-311.pyc").write_bytes(b"x")
    locked()


@pytest.mark.parametrize("name", ["more.pyc", "words.pyc", "__pycache__/more.pyc", "__pycache__/more.py"])
def test_compiled_code_that_python_imports_without_a_source_counts(plugin, locked, name):
    file = plugin.site / plugin.package / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x")
    with pytest.raises(UserError, match=" has sha256 "):
        locked()


def test_another_place_has_the_same_hash(plugin, tmp_path, monkeypatch):
    here = lock_of("detectors", ["mine"])
    monkeypatch.undo()
    other = tmp_path / "another site"
    other.mkdir()
    monkeypatch.syspath_prepend(str(other))
    second = Plugin(other)
    second.install()
    assert lock_of("detectors", ["mine"]) == here


@pytest.fixture
def checkout(plugin, tmp_path, monkeypatch):
    """The folder of sys.path in which an editable install of the plugin has its code; its RECORD lists no code."""
    checkout = tmp_path / "checkout/src"
    checkout.mkdir(parents=True)
    (plugin.site / plugin.package).rename(checkout / plugin.package)
    plugin.files = {"__editable__.person_finder.pth": f"{checkout}\n"}
    plugin.install()
    monkeypatch.syspath_prepend(str(checkout))
    return checkout


def test_an_editable_install_is_hashed_where_its_code_is(plugin, checkout):
    before = lock_of("detectors", ["mine"])
    (checkout / plugin.package / "words.py").write_text("WORDS = ()\n")
    assert lock_of("detectors", ["mine"]) != before


def written(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    "file",
    ["helper.py", "helper.pyc", "helper.abi3.so", "other/__init__.py", "other/weights.bin", "space/deep/part.py",
     "linked/more.py", "person_finder/linked/more.py"],
)  # fmt: skip
def test_all_that_an_editable_install_can_import_counts(checkout, tmp_path, file):
    written(checkout / "other/__init__.py", "")
    (tmp_path / "elsewhere").mkdir()
    (checkout / "linked").symlink_to(tmp_path / "elsewhere")
    (checkout / "person_finder/linked").symlink_to(tmp_path / "elsewhere")
    written(checkout / file, "x = 1\n")
    before = lock_of("detectors", ["mine"])
    written(checkout / file, "x = 2\n")
    assert lock_of("detectors", ["mine"]) != before


@pytest.mark.parametrize(
    "file", ["README.md", "no-name/part.py", "space/data.bin", "env/lib/part.py", "__pycache__/x.cpython-311.pyc"]
)
def test_what_an_editable_install_cannot_import_does_not_count(checkout, file):
    written(checkout / "env/pyvenv.cfg", "")
    (checkout / "circle").symlink_to(checkout)
    (checkout / "person_finder/circle").symlink_to(checkout / "person_finder")
    before = lock_of("detectors", ["mine"])
    written(checkout / file, "x = 1\n")
    assert lock_of("detectors", ["mine"]) == before


def test_each_folder_that_an_editable_install_links_counts(plugin, checkout, tmp_path):
    second = tmp_path / "second"
    written(second / "helper.py", "x = 1\n")
    written(second / "person_finder/__init__.py", "x = 1\n")  # hidden by the first folder
    plugin.files = {"__editable__.person_finder.pth": f"# folders\n{checkout}\nimport os\n{second}\nno/such\n"}
    plugin.install()
    hashes = [lock_of("detectors", ["mine"])[0]["sha256"]]
    for file in ("helper.py", "person_finder/__init__.py"):
        written(second / file, "x = 2\n")
        hashes.append(lock_of("detectors", ["mine"])[0]["sha256"])
    assert len(set(hashes)) == 3


def test_a_package_that_setuptools_maps_to_another_folder_counts(plugin, checkout, tmp_path, monkeypatch):
    folder = tmp_path / "lib/named_otherwise"
    written(folder / "__init__.py", "x = 1\n")

    class Mapping:
        @staticmethod
        def find_spec(name, path=None, target=None):
            place = folder / "__init__.py"
            return (
                spec_from_file_location(name, place, submodule_search_locations=[str(folder)])
                if name == "mapped"
                else None
            )

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Mapping])
    info = next(plugin.site.glob("*.dist-info"))
    written(info / "top_level.txt", "person_finder\nmapped\nsys\nno_such\n")
    before = lock_of("detectors", ["mine"])
    poisoned(folder / "__init__.py", PycInvalidationMode.UNCHECKED_HASH, "x = 2\n")
    assert lock_of("detectors", ["mine"]) == before
    find("detectors", "mine").load()
    assert importlib.import_module("mapped").x == 1
    del sys.modules["mapped"]
    written(folder / "__init__.py", "x = 2\n")
    assert lock_of("detectors", ["mine"]) != before


def test_an_editable_install_with_src_has_the_hash_of_the_installed_package(plugin, tmp_path, request):
    (plugin.site / plugin.package / "__pycache__").mkdir(exist_ok=True)
    before = lock_of("detectors", ["mine"])
    request.getfixturevalue("checkout")
    assert lock_of("detectors", ["mine"]) == before


def test_a_checkout_with_too_many_files_is_refused(checkout, monkeypatch):
    monkeypatch.setattr("codex_ml.core.plugin_files.MOST_FILES", 3)
    for number in range(4):
        written(checkout / f"{number}.txt", "")
    with pytest.raises(UserError, match=r"person-finder is installed from .*src, which holds more than 3 files"):
        lock_of("detectors", ["mine"])
    with pytest.raises(
        UnusablePlugin, match="detector 'mine' cannot be imported: UserError: person-finder is installed"
    ):
        find("detectors", "mine").load()


def test_two_modules_of_an_installed_package_count(plugin):
    plugin.files |= {"helper.py": "x = 1\n"}
    plugin.install()
    before = lock_of("detectors", ["mine"])
    written(plugin.site / "helper.py", "x = 2\n")
    written(plugin.site / "of_another_package.py", "x = 1\n")
    changed = lock_of("detectors", ["mine"])
    assert changed != before
    written(plugin.site / "of_another_package.py", "x = 2\n")
    assert lock_of("detectors", ["mine"]) == changed


def poisoned(source: Path, mode: PycInvalidationMode, text: str = "") -> None:
    """Put byte code of another program beside a source, which Python takes for that of the source."""
    other = source.with_suffix(".txt")
    other.write_text(text or source.read_text().replace("Jane Roe", "no match"))
    stat = source.stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    py_compile.compile(str(other), cfile=cache_from_source(str(source)), invalidation_mode=mode, doraise=True)
    other.unlink()


@pytest.mark.parametrize("mode", [PycInvalidationMode.UNCHECKED_HASH, PycInvalidationMode.TIMESTAMP])
@pytest.mark.parametrize("way", ["installed", "editable"])
def test_byte_code_that_is_not_of_the_recorded_source_does_not_run(plugin, tmp_path, request, mode, way):
    folder = plugin.site if way == "installed" else request.getfixturevalue("checkout")
    write_lock("detectors", ["mine"], tmp_path / "detectors.lock")
    poisoned(folder / plugin.package / "words.py", mode)
    refuse_other_code("detectors", ["mine"], tmp_path / "detectors.lock")
    command = [sys.executable, "-c", f"import {plugin.package}.words as words; print(words.WORDS)"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    assert subprocess.check_output(command, env=environment, text=True) == "('no match',)\n"  # Python itself runs it
    detector = find("detectors", "mine").load()
    assert detector("Jane Roe, no match") == [("person", 0, 8)]


def test_a_module_that_the_plugin_imports_later_is_compiled_from_its_source_too(plugin):
    plugin.files[f"{plugin.package}/__init__.py"] = "def find(text):\n    from .words import WORDS\n    return WORDS\n"
    plugin.install()
    detector = find("detectors", "mine").load()
    poisoned(plugin.site / plugin.package / "words.py", PycInvalidationMode.UNCHECKED_HASH)
    assert detector("") == ("Jane Roe",)
    assert not (plugin.site / plugin.package / "__pycache__/__init__.cpython-311.pyc").exists()


def test_only_the_detectors_own_part_of_a_namespace_package_is_hashed(plugin, tmp_path):
    plugin.files = {"finders/person/__init__.py": CODE, "finders/person/words.py": "WORDS = ()\n"}
    plugin.install(entry="finders.person:find")
    before = lock_of("detectors", ["mine"])
    (plugin.site / "finders/place").mkdir()
    (plugin.site / "finders/place/__init__.py").write_text("x = 1\n")
    assert lock_of("detectors", ["mine"]) == before
    (plugin.site / "finders/person/words.py").write_text("WORDS = ('x',)\n")
    assert lock_of("detectors", ["mine"]) != before


def test_a_detector_of_one_file_counts(plugin):
    plugin.files = {"lonely.py": "def find(text): return []\n"}
    plugin.install(entry="lonely:find")
    before = lock_of("detectors", ["mine"])
    (plugin.site / "lonely.py").write_text("def find(text): return [1]\n")
    assert lock_of("detectors", ["mine"]) != before


@pytest.mark.parametrize(
    ("names", "lock", "message"),
    [
        (
            ["mine"],
            "detectors: []\n",
            "does not have the detector 'mine', which data/policy.yaml names; run `codex-ml plugins",
        ),
        ([], None, "data/policy.yaml does not have the detector 'mine', which "),
        (
            ["mine"],
            "detectors: {}\n",
            "expected `detectors`, a list of mappings with name, distribution, version, object",
        ),
        (["mine"], "- 1\n", "expected `detectors`"),
        (["mine"], "detectors: [{name: mine}]\n", "expected `detectors`"),
        (["yours"], "detectors: []\n", "detector 'yours' is not installed; installed are: mine"),
    ],
)
def test_a_lock_with_other_detectors_than_the_policy_is_refused(plugin, locked, tmp_path, names, lock, message):
    path = tmp_path / "detectors.lock"
    if lock is not None:
        path.write_text(lock)
    with pytest.raises(UserError) as error:
        refuse_other_code("detectors", names, path)
    assert message in str(error.value)


def test_no_detector_needs_no_lock(tmp_path):
    refuse_other_code("detectors", [], tmp_path / "none")


def test_check_and_verify_name_other_code(plugin, workspace, monkeypatch):
    from codex_ml.cli.checks import hash_chain
    from codex_ml.core.pipeline import Locked

    policy = Path("data/policy.yaml")
    policy.write_text(policy.read_text().replace("detectors: []", "detectors: [mine]"))
    told = "data/detectors.lock does not have the detector 'mine', which data/policy.yaml names"
    assert any(told in problem for problem in problems(load_params(), load_pipeline()))
    write_lock("detectors", ["mine"])
    assert not any("detector" in problem for problem in problems(load_params(), load_pipeline()))
    plugin.install("2.0")
    assert any("has version 1.0, installed is 2.0" in problem for problem in problems(load_params(), load_pipeline()))
    spec = load_pipeline()["split"]
    assert str(DETECTORS) in spec.deps
    assert str(DETECTORS) in load_pipeline()["safety_audit"].deps
    lock = {"split": Locked(cmd=spec.cmd, deps={str(DETECTORS): ""}, outs={}, params={})}
    with pytest.raises(
        CheckFailed, match=r"^split: detector 'mine': data/detectors\.lock has version 1\.0, installed is 2\.0"
    ):
        list(
            hash_chain._verify_inputs(
                spec, lock, {"deps": {str(DETECTORS): {"md5": "", "sha256": ""}}}, hash_chain._Hashes()
            )
        )


def test_the_hook_refuses_to_look_with_other_code(plugin, workspace):
    policy = Path("data/policy.yaml")
    policy.write_text(policy.read_text().replace("detectors: []", "detectors: [mine]"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(plugin.site), "src"])}

    def hook():
        command = [sys.executable, "-m", "codex_ml", "hook", "secrets", "--", "params.yaml"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert hook().returncode == 2
    done = subprocess.run(
        [sys.executable, "-m", "codex_ml", "plugins", "lock"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "plugins: detector mine: person-finder 1.0, person_finder:find\n" in done.stdout
    assert hook().returncode == 0
    CHANGES["code"](plugin)
    plugin.install()
    assert (hook().returncode, "detector 'mine': data/detectors.lock has sha256" in hook().stderr) == (2, True)
