"""The key of the placeholders becomes private by one command, and every DVC command still finds it."""

import shutil
import subprocess

import pytest
from workspace import Workspace, commit

PUBLIC = b"This key is public: it belongs to the sample corpus"


@pytest.fixture
def small(tmp_path, repository):
    """A Git and DVC repository with the published key and one stage that reads it."""
    root = tmp_path / "checkout"
    (root / "data").mkdir(parents=True)
    (root / "src").symlink_to(repository / "src")
    shutil.copyfile(repository / "tests/project/data/redaction_key", root / "data/redaction_key")
    (root / ".gitignore").write_text("/src\n")
    (root / "dvc.yaml").write_text(
        "stages:\n  read:\n    cmd: python -c \"open('out','w').write(open('data/redaction_key').read()[:3])\"\n"
        "    deps: [data/redaction_key]\n    outs: [out]\n"
    )
    workspace = Workspace(root, tmp_path)
    workspace.run("git", "init", "-q", "-b", "main")
    workspace.dvc("init", "-q")
    commit(workspace, "start")
    return workspace


def test_a_private_key_is_tracked_by_dvc_and_ignored_by_git(small, tmp_path):
    small.dvc("repro", "-q")
    commit(small, "run with the published key")
    shown = small.cli("policy", "new-key").stdout
    key = small.root / "data/redaction_key"
    secret = key.read_bytes()
    assert len(secret.strip()) == 64
    assert PUBLIC not in secret
    assert key.stat().st_mode & 0o077 == 0
    for made in (".dvc/cache", "data/redaction_key.dvc", "data/.gitignore"):  # of the team, not of one user
        assert (small.root / made).stat().st_mode & 0o044 == 0o044
    for line in shown.splitlines():  # what it advises works as printed
        if line.strip().startswith("git "):
            small.run(
                "sh", "-c", line.strip().replace("git commit", "git -c user.name=T -c user.email=t@example.org commit")
            )
    assert small.run("git", "status", "--porcelain").stdout == ""
    assert small.run("git", "check-ignore", "data/redaction_key").stdout.strip() == "data/redaction_key"
    everything = small.run("git", "log", "--all", "-p", "--text").stdout
    assert secret.decode().strip() not in everything
    assert "read" in small.dvc("status").stdout  # the stage sees the new key

    small.dvc("exp", "run", "--temp", "-q")
    small.dvc("repro", "-q")
    assert (small.root / "out").read_bytes() == secret[:3]
    small.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    small.dvc("push", "-q")
    key.unlink()
    subprocess.run(["rm", "-rf", str(small.root / ".dvc/cache")], check=True)
    small.dvc("pull", "-q")
    assert key.read_bytes() == secret

    again = small.cli("policy", "new-key", check=False)
    assert (again.returncode, key.read_bytes()) == (2, secret)
    assert "is private already" in again.stderr

    pointer = (small.root / "data/redaction_key.dvc").read_bytes()
    key.unlink()  # as in the clone of a colleague who has not pulled yet
    unpulled = small.cli("policy", "new-key", check=False)
    assert (unpulled.returncode, key.exists()) == (2, False)
    assert "`dvc pull data/redaction_key.dvc` fetches it" in unpulled.stderr
    assert (small.root / "data/redaction_key.dvc").read_bytes() == pointer


def test_where_dvc_refuses_nothing_changes(small):
    (small.root / ".dvc/config").write_text("[core\n")
    before = small.run("git", "ls-files", "-s").stdout
    failed = small.cli("policy", "new-key", check=False)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: `dvc add")
    assert "Traceback" not in failed.stderr
    assert (small.root / "data/redaction_key").read_bytes().startswith(PUBLIC)
    assert small.run("git", "ls-files", "-s").stdout == before
