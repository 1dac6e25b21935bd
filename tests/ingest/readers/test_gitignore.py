"""Random patterns give the same result as Git, and a hostile pattern takes little time."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from codex_ml.ingest.readers.gitignore import parse, translate

PIECES = ["a", "b", "*", "**", "?", "/", "[ab]", "[!a]", "[^b]", "[a-c]", "[c-a]", "[]a]", "[[:alpha:]]", "[[:punct:]]", "[[:print:]]",
          "[[:space:]]", "[[:cntrl:]]", "[:a]", "[a", "\\*", "\\", "\\a", "!", "#", " ", "é", "-", "[a/b]", "[é]", "**/", "/**", "\\/", "***",
          "[a-", "[[:]", "[[:x]a]", ".", "\\ ", "[a-c-e]", "[--b]", "[\\]a]", "[a\\-c]"]  # fmt: skip
LETTERS = ["a", "b", "c", "ab", "aab", "é", "-", "[", "a b", "*", "!a", "#a", "]", "aé", " ", "a-c", "\\", "^"]


def git_ignores(folder, patterns, names):
    (folder / ".gitignore").write_bytes(("\n".join(patterns) + "\n").encode())
    run = ["git", "-C", folder, "check-ignore", "--no-index", "-z", "--stdin"]
    done = subprocess.run(run, input="".join(f"{name}\0" for name in names).encode(), capture_output=True, check=False)
    return {name.decode() for name in done.stdout.split(b"\0") if name}


def we_ignore(patterns, names):
    parsed = list(reversed(parse("\n".join(patterns) + "\n")))

    def says(name, *, is_folder):
        return next((not p.negated for p in parsed if p.matches(name, is_folder=is_folder)), False)

    def ignored(name):
        parts = name.split("/")
        folders = ("/".join(parts[:count]) for count in range(1, len(parts)))
        return any(says(folder, is_folder=True) for folder in folders) or says(name, is_folder=False)

    return {name for name in names if ignored(name)}


def test_random_patterns_match_the_same_random_paths_as_in_git(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    rng = random.Random(8)
    hits = 0
    for _ in range(300):
        patterns = ["".join(rng.choices(PIECES, k=rng.randint(1, 7))) for _ in range(rng.choice([1, 1, 2, 3]))]
        names = sorted(
            {
                "/".join("".join(rng.choices(LETTERS, k=rng.randint(1, 3))) for _ in range(rng.randint(1, 4)))
                for _ in range(60)
            }
        )
        expected = git_ignores(tmp_path, patterns, names)
        assert we_ignore(patterns, names) == expected, patterns
        hits += len(expected)
    assert hits > 500


@pytest.mark.parametrize(
    ("pattern", "name", "ignored"),
    [
        ("x/a**/b", "x/ab/c/b", True),  # without its literal begin the pattern is `**/b`
        ("/a**", "ab/c", True),
        ("a/**/**/b", "a/b", True),
        ("a/***/b", "a/x/y/b", True),
        ("[c-a]", "c", True),
        ("caf?", "café", False),  # two bytes
        ("caf??", "café", True),
        ("a\\\\ ", "a\\", True),
        ("[[:graph:]]", "~", True),
        ("*" * 5000 + "a", "bba", True),
        ("a" * 5000, "a" * 5000, False),
    ],
)
def test_surprising_rules_of_git_hold(pattern, name, ignored):
    assert we_ignore([pattern], [name]) == ({name} if ignored else set())


COSTLY = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
sys.path.insert(0, {helpers!r})
from helpers import ingest, write
stars, deep = "*a" * 20 + "*b", "**/a/" * 60 + "b"
for number in range(20):
    write("in/" + "a" * 200 + str(number) + ".py", "x = 1")
write("in/" + "a/" * 60 + "a.py", "x = 1")
{settings}
documents, refused = ingest("files", glob=glob, exclude=exclude, gitignore=True)
print(len(documents))
"""


@pytest.mark.parametrize(
    ("settings", "documents"),
    [
        ("write('in/.gitignore', (stars + '\\n') * 20); glob, exclude = '**/*.py', ()", 21),
        ("write('in/.gitignore', (deep + '\\n') * 20); glob, exclude = '**/*.py', ()", 21),
        ("write('in/.gitignore', '**/*a*a*a*a*a*a/' * 20 + 'b\\n'); glob, exclude = '**/*.py', ()", 21),
        ("write('in/.gitignore', '[a-z]*?' * 60 + '[!y]\\n'); glob, exclude = '**/*.py', ()", 21),
        ("write('in/.gitignore', '*a' * 100_000 + 'b\\n'); glob, exclude = '**/*.py', ()", 21),
        ("glob, exclude = stars, ()", 0),
        ("glob, exclude = '**/' + stars, ()", 0),
        ("glob, exclude = '**/*.py', (deep, '**/a/*' * 30 + '/b')", 21),
    ],
)
def test_a_hostile_pattern_costs_little_cpu(settings, documents, tmp_path):
    code = COSTLY.format(helpers=str(Path(__file__).parent), settings=settings)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{documents}\n"), done.stderr


def test_a_long_pattern_matches_a_long_path_in_one_pass_per_chunk():
    """Counts steps of the matcher: each `*a` of the pattern takes the next `a` once, so a mismatch is found at once."""
    expression = translate("*a" * 2000 + "*b")
    assert expression is not None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert expression.fullmatch("a" * 4000) is None
    assert expression.fullmatch("a" * 4000 + "b")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
