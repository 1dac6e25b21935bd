"""Progress: a bar on a terminal, a plain line now and then elsewhere, nothing when it is off."""

import sys

import pytest

from codex_ml.core import progress as module
from codex_ml.core.progress import duration, progress, track


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"), (0, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (190, "3 min 10 s"), (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"), (200_000, "55 h 33 min"),
    ],
)  # fmt: skip
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_off_is_silent(capsys):
    assert list(track([1, 2], "x", 2, "items", style="off")) == [1, 2]
    assert capsys.readouterr() == ("", "")


def test_plain_lines_show_count_rate_and_time_left(capsys, clock):
    with progress("encode", 10_000, "documents", style="plain") as advance:
        clock[0] += 5
        advance(1000)  # too early for a line
        clock[0] += 5
        advance(1000)
        clock[0] += 9.9
        advance(1)
        clock[0] += 20
        advance(1999)
    assert capsys.readouterr().err.splitlines() == [
        "encode: 2,000/10,000 documents, 200.0/s, 40 s left",
        "encode: 4,000/10,000 documents, 100.3/s, 1 min 0 s left",
    ]


def test_what_an_interrupted_run_did_does_not_count_for_the_rate(capsys, clock):
    with progress("train", 100, "steps", style="plain", done=50) as advance:
        clock[0] += 5
        advance(5)
        clock[0] += 5
        advance(5)
    assert capsys.readouterr().err == "train: 60/100 steps, 1.0/s, 40 s left\n"


def test_a_slow_first_unit_is_in_no_rate_and_in_no_time_left(capsys, clock):
    with progress("train", 1000, "steps", style="plain", done=100, first_apart=True) as advance:
        clock[0] += 50
        advance(1)  # compiles
        for _ in range(2):
            clock[0] += 10
            advance(20)
    assert capsys.readouterr().err.splitlines() == [
        "train: 121/1,000 steps, 2.0/s, 7 min 20 s left", "train: 141/1,000 steps, 2.0/s, 7 min 10 s left"
    ]  # fmt: skip


def test_a_first_unit_that_takes_long_says_nothing_about_the_others(capsys, clock):
    """Of 128 items at 0.015 per second two hours would be left; the next ones take a second each."""
    with progress("extraction", 128, "items", style="plain") as advance:
        clock[0] += 66
        advance(1)
        for _ in range(10):
            clock[0] += 1
            advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "extraction: 1/128 items", "extraction: 11/128 items, 1.0/s, 1 min 57 s left"
    ]  # fmt: skip


def test_a_slow_first_unit_is_in_no_rate_of_the_bar(capsys, monkeypatch):
    from rich import progress as rich_progress

    now = [100.0]
    made = []
    real = rich_progress.Progress

    def progress_with_clock(*columns, **settings):
        made.append(real(*columns, **settings, get_time=lambda: now[0], auto_refresh=False))
        return made[0]

    monkeypatch.setattr(rich_progress, "Progress", progress_with_clock)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress("train", 1000, "steps", first_apart=True) as advance:
        now[0] += 50
        advance(1)
        for _ in range(5):
            now[0] += 1
            advance(2)
        assert made[0].tasks[0].speed == 2.0
        assert made[0].tasks[0].time_remaining == 495


def test_no_progress_has_no_time_left(capsys, clock):
    with progress("train", 100, "steps") as advance:  # "auto" without a terminal
        clock[0] += 5
        advance(0)
        clock[0] += 5
        advance(0)
    assert capsys.readouterr().err == "train: 0/100 steps, 0.0/s, ?\n"


def test_track_counts_what_was_finished(capsys, clock):
    for item in track(iter([1, 2, 3]), "x", 3, "items", style="plain"):
        clock[0] += item * 10
    assert capsys.readouterr().err.splitlines() == [
        "x: 1/3 items", "x: 2/3 items, 0.05/s, 20 s left", "x: 3/3 items, 0.04/s, 0 s left",
    ]  # fmt: skip


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with progress("train", 4, "steps", done=1) as advance:
        advance(1)
        advance(2)
    shown = capsys.readouterr().err
    assert "train" in shown
    assert "4/4" in shown
