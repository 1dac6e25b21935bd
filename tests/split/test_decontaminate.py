"""Benchmark items are found regardless of case, white space and punctuation; unchecked texts are listed."""

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codex_ml.core.errors import UserError
from codex_ml.split.benchmarks import read_benchmarks
from codex_ml.split.config import Benchmark
from codex_ml.split.decontaminate import Overlap

from .dealing import plain_words

LONG = "def mean_of(values): return the sum of all the values divided by how many values there are"  # 17 words
THIRTEEN = "one two three four five six seven eight nine ten eleven twelve thirteen"
SHORT = "return sorted(set(left) & set(right), reverse=flag)"  # 8 words


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/benchmarks").mkdir(parents=True)
    return tmp_path / "data/benchmarks"


def write(path, records):
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def read(*names, fields=("prompt",)):
    return read_benchmarks(tuple(Benchmark(path=f"data/benchmarks/{name}", fields=fields) for name in names))


def index(folder, *texts):
    write(folder / "b.jsonl", [{"task_id": f"t/{i}", "prompt": text} for i, text in enumerate(texts)])
    return read("b.jsonl")


def found(benchmarks, text):
    return [(hit.item, text[hit.start : hit.end]) for hit in benchmarks.find(text)]


COPY = "DEF Mean_OF (\tValues ):\n    return -- the sum, of ALL the values; divided by how many values there are"


@pytest.mark.parametrize(
    ("text", "span"),
    [
        (LONG, LONG),
        (f"x = 1\n{COPY}!\ny = 2", COPY),
        (f"# größer — 日本語 😀 {COPY}. Ünïcödé", COPY),
        (f"\ud800 İ K {COPY}", COPY),  # a lone surrogate; letters whose lower case is longer, or of ASCII
        (f"mean_of {' '.join(THIRTEEN.split())} {COPY} é", COPY),
        (LONG.replace("sum", "sümm"), None),  # 6 words before and 10 after
        (" ".join(LONG.split()[3:]), " ".join(LONG.split()[3:])),  # part of the item, 14 words
        (LONG.replace("of all", "of nearly all"), None),
        ("", None),
        ("...", None),
        ("one", None),
    ],
)
def test_an_item_is_found_with_its_exact_span(folder, text, span):
    assert found(index(folder, LONG), text) == ([("t/0", span)] if span else [])


def test_thirteen_words_in_a_row_are_needed(folder):
    benchmarks = index(folder, THIRTEEN)
    assert found(benchmarks, f"zero {THIRTEEN} fourteen") == [("t/0", THIRTEEN)]
    assert found(benchmarks, THIRTEEN.removesuffix(" thirteen")) == []
    assert found(benchmarks, THIRTEEN.removeprefix("one ") + " fourteen") == []
    assert found(benchmarks, THIRTEEN.replace("six seven", "seven six")) == []
    assert found(benchmarks, THIRTEEN.replace("six seven", "sixseven zero")) == []


def test_a_short_item_is_found_only_as_a_whole(folder):
    benchmarks = index(folder, SHORT, "a b c d e f")
    assert benchmarks.unchecked == ()
    text = "if x: RETURN sorted( set(left) & set(right), reverse = Flag)  # a.b.c.d.e.f"
    assert found(benchmarks, text) == [
        ("t/0", "RETURN sorted( set(left) & set(right), reverse = Flag"),
        ("t/1", "a.b.c.d.e.f"),
    ]
    assert found(benchmarks, SHORT.removesuffix("flag)")) == []


def test_the_longest_span_is_reported_and_touching_spans_are_joined(folder):
    words = [f"w{i}" for i in range(40)]
    benchmarks = index(folder, " ".join(words))
    part, whole = " ".join(words[:13]), " ".join(words)
    assert found(benchmarks, f"{part} x {whole} x {part}") == [("t/0", whole)]
    both = " ".join(words[20:33]) + " " + part
    assert found(benchmarks, f"x {both} x") == [("t/0", both)]


def test_the_fields_of_an_item_are_separate_texts(folder):
    words = THIRTEEN.split()
    write(folder / "b.jsonl", [{"id": 7, "prompt": " ".join(words[:6]), "solution": " ".join(words[6:])}])
    benchmarks = read("b.jsonl", fields=("prompt", "solution"))
    assert found(benchmarks, " ".join(words[6:])) == [("7", " ".join(words[6:]))]
    assert found(benchmarks, THIRTEEN) == [("7", THIRTEEN)]  # side by side they are one span
    assert found(benchmarks, " ".join(words[3:10])) == []


def test_a_text_too_short_to_check_is_listed(folder):
    records = [
        {"task_id": "t/0", "prompt": "return x + y", "solution": SHORT},
        {"task_id": "t/1", "prompt": "", "solution": "a b c d e"},
        {"task_id": "t/2", "solution": None},
        {"task_id": "t/3", "prompt": SHORT, "solution": ["a list"]},
    ]
    write(folder / "b.jsonl", records)
    benchmarks = read("b.jsonl", fields=("prompt", "solution"))
    assert benchmarks.unchecked == (
        "b.jsonl: t/0 (prompt, 3 words)",
        "b.jsonl: t/1 (prompt, 0 words)",
        "b.jsonl: t/1 (solution, 5 words)",
        "b.jsonl: t/2 (no text)",
    )
    assert [hit.item for hit in benchmarks.find(SHORT)] == ["t/0", "t/3"]


def test_allowed_texts_are_neither_hits_nor_unchecked(folder):
    (folder / "allow.txt").write_text(f"\nreturn x+y\n{SHORT.upper()}\n{THIRTEEN}\n", encoding="utf-8")
    benchmarks = index(folder, SHORT, "Return x + y", THIRTEEN, LONG)
    assert benchmarks.unchecked == ()
    assert found(benchmarks, f"{SHORT} {THIRTEEN} {LONG}") == [("t/3", LONG)]


def test_two_benchmarks_one_of_them_compressed(folder):
    (folder / "more").mkdir()
    write(folder / "a.jsonl", [{"task_id": "", "id": True, "prompt": LONG}, {"prompt": SHORT}])
    write(folder / "more/b.jsonl.gz", [{"task_id": "b/0", "id": 3, "question": LONG}])
    files = (
        Benchmark(path="data/benchmarks/*.jsonl", fields=("prompt",)),
        Benchmark(path="data/benchmarks/**/*.gz", fields=("question",)),
    )
    benchmarks = read_benchmarks(files)
    assert benchmarks.find(f"x {LONG}\n{SHORT}") == [
        Overlap("a.jsonl", "a.jsonl:1", 2, 2 + len(LONG)),
        Overlap("a.jsonl", "a.jsonl:2", 3 + len(LONG), 2 + len(LONG) + len(SHORT)),
        Overlap("more/b.jsonl.gz", "b/0", 2, 2 + len(LONG)),
    ]


def test_items_that_repeat_a_run_are_each_found_once(folder):
    benchmarks = index(folder, "0, " * 50, "0, " * 50, THIRTEEN)
    assert found(benchmarks, "0 " * 5000) == [("t/0", ("0 " * 5000).strip()), ("t/1", ("0 " * 5000).strip())]


def test_without_texts_nothing_is_found(folder):
    assert index(folder, "a b").find(LONG) == []
    assert read_benchmarks(()).find(LONG) == []


@pytest.mark.parametrize(
    ("content", "path", "message"),
    [
        (b"", "none-*.jsonl", "data/benchmarks/none-*.jsonl matches no file; put the benchmark there"),
        (b"", "b**.jsonl", "use * inside a name"),
        (b"", "", "matches no file"),  # the folder itself
        (
            b'{"prompt": "x"}\n\n{"prompt": \n',
            "b.jsonl",
            "data/benchmarks/b.jsonl:3: not a JSON object (Expecting value",
        ),
        (
            b'{"prompt": "x", "prompt": "y"}\n',
            "b.jsonl",
            "data/benchmarks/b.jsonl:1: not a JSON object (the key 'prompt'",
        ),
        (b'{"prompt": NaN}\n', "b.jsonl", "data/benchmarks/b.jsonl:1: not a JSON object (NaN is not JSON"),
        (b'{"prompt": "x"}\n[1]\n', "b.jsonl", "data/benchmarks/b.jsonl:2: not a JSON object (a JSON list)"),
        (b'{"prompt": "\xff"}\n', "b.jsonl", "data/benchmarks/b.jsonl:1: not a JSON object ('utf-8' codec"),
        (b"[" * 100_000, "b.jsonl", "data/benchmarks/b.jsonl:1: not a JSON object (nested too deeply"),
        (
            b'{"text": "x", "n": 1}\n',
            "b.jsonl",
            "no item has a text in the field prompt; fields with texts: text. Set `fields`",
        ),
        (
            b'{"prompt": 1}\n',
            "b.jsonl",
            "no item has a text in the field prompt; fields with texts: none. Set `fields`",
        ),
        (b"", "b.jsonl", "no item has a text in the field prompt"),
        (b"no gzip", "b.jsonl.gz", "data/benchmarks/b.jsonl.gz:1: damaged gzip file (Not a gzipped file"),
        (
            gzip.compress(b'{"prompt": "x"}\n' * 99, mtime=0)[:-9],
            "b.jsonl.gz",
            ": damaged gzip file (Compressed file ended",
        ),
    ],
)
def test_an_unreadable_file_gives_the_place_and_the_advice(folder, content, path, message):
    for name in ("b.jsonl", "b.jsonl.gz"):
        (folder / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read(path)
    assert message in str(error.value)


def test_an_allow_list_in_another_encoding_is_refused(folder):
    (folder / "allow.txt").write_bytes("größer".encode("latin-1"))
    with pytest.raises(UserError, match=r"allow\.txt: not UTF-8 .* save it as UTF-8"):
        index(folder, LONG)


def test_a_byte_order_mark_and_unicode_line_separators_do_no_harm(folder):
    (folder / "b.jsonl").write_bytes(
        b"\xef\xbb\xbf" + json.dumps({"prompt": f"\u2028{LONG}"}, ensure_ascii=False).encode()
    )
    assert found(read("b.jsonl"), LONG) == [("b.jsonl:1", LONG)]


WORDS = st.from_regex(r"[A-Za-zА-Яа-яßé0-9_]{1,70}", fullmatch=True).filter(lambda w: w.swapcase().lower() == w.lower())
GAPS = st.text(st.characters(codec=None), min_size=1, max_size=4).map(
    lambda t: "".join(c for c in t if not word(c)) or " "
)


def word(character):
    return plain_words(f"a{character}b") != ["a", "b"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(data=st.data(), words=st.lists(WORDS, min_size=13, max_size=30), before=st.text(), after=st.text())
def test_a_planted_item_is_always_found(folder, data, words, before, after):
    gaps = data.draw(st.lists(GAPS, min_size=len(words), max_size=len(words)))
    planted = "".join(w.swapcase() + gap for w, gap in zip(words[:-1], gaps, strict=False)) + words[-1]
    benchmarks = index(folder, " ".join(words), THIRTEEN)
    text = f"{before} {planted} {after}"
    hits = benchmarks.find(text)
    start = len(before) + 1
    assert any(h.item == "t/0" and h.start <= start and start + len(planted) <= h.end for h in hits)
    assert len(hits) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    item=st.lists(st.sampled_from("abc"), min_size=6, max_size=20),
    text=st.lists(st.sampled_from("abc"), max_size=60),
)
def test_hits_equal_those_of_a_plain_search(folder, item, text):
    length = min(13, len(item))
    runs = {tuple(item[i : i + length]) for i in range(len(item) - length + 1)}
    held = any(tuple(text[i : i + length]) in runs for i in range(len(text) - length + 1))
    assert bool(index(folder, " ".join(item)).find(" ".join(text))) == held


CHINESE = "小明有三个苹果，小红给了他五个苹果，请问他现在一共有多少个苹果？答案是八个。"  # 34 letters
THAI = "นักเรียนคนหนึ่งมีแอปเปิลสามผล แม่ให้เพิ่มอีกห้าผล ตอนนี้เขามีแอปเปิลทั้งหมดกี่ผล"
RUSSIAN = "у мальчика было три яблока и мама дала ему ещё пять яблок сколько у него теперь всего"


@pytest.mark.parametrize("item", [CHINESE, THAI, RUSSIAN])
@pytest.mark.parametrize("change", [str, str.upper, lambda t: t.replace("，", " , ").replace(" ", "\n\n")])
def test_items_of_every_script_are_found_with_their_span(folder, item, change):
    benchmarks = index(folder, item)
    assert benchmarks.unchecked == ()
    inside = f"前文 İ début. 「{change(item)}」 конец ท้าย end"
    [(name, span)] = found(benchmarks, inside)
    assert name == "t/0"
    assert span.strip("。？」") == change(item).rstrip("。")
    assert found(benchmarks, "前文 début конец ท้าย") == []
    assert found(benchmarks, item[: len(item) // 4]) == []


def test_an_item_of_letters_needs_twice_as_many(folder):
    """Six or seven letters are only a name in Chinese, such as 中华人民共和国; every text about it would be a hit."""
    assert index(folder, CHINESE[:11].replace("，", "")).unchecked == ("b.jsonl: t/0 (prompt, 10 words)",)
    letters = CHINESE.replace("，", "")[:31]
    benchmarks = index(folder, letters)
    assert found(benchmarks, "甲" + letters[:26] + "乙") == [("t/0", letters[:26])]
    assert found(benchmarks, "甲" + letters[:25] + "乙") == []
    mixed = f"{THIRTEEN} 苹果 苹果"  # most of its words are English: 13 are enough
    assert found(index(folder, mixed), THIRTEEN) == [("t/0", THIRTEEN)]
