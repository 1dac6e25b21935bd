"""CSV and TSV: RFC 4180, the line at which a record begins, and nothing lost silently."""

import csv
import io
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.documents.document import Document, Refused
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers.csv_tables import plan_table
from codex_ml.ingest.readers.tasks import Context

SOURCE = Source(kind="csv", path="t.csv")


def read(*blocks, delimiter=",", limit=1 << 20, max_bytes=1 << 20):
    context = Context(SOURCE, "t.csv", max_bytes)
    items = []
    for task in plan_table(iter(blocks), context, delimiter=delimiter, limit=limit):
        items += [task] if isinstance(task, Refused) else task.read()
    return items


def told(items):
    return [
        (int(item.place.rpartition(":")[2]), item.id, item.text)
        if isinstance(item, Document)
        else (item.line, item.reason)
        for item in items
    ]


TABLE = (
    b'id,text\n1,plain\r\n2,"two\nlines"\n\n3,"cr lf\r\ninside"\n4,"she said ""yes"", loudly"\n5,"a, b"\n'
    b'6,"open" end\n7,ok\n8\n9,x,y\n10,bare " quote\n11,last'
)
EXPECTED = [
    (2, "1", "plain"),
    (3, "2", "two\nlines"),
    (6, "3", "cr lf\r\ninside"),
    (8, "4", 'she said "yes", loudly'),
    (9, "5", "a, b"),
    (10, "text after a closing quote"),
    (11, "7", "ok"),
    (12, "1 cell, the header has 2"),
    (13, "3 cells, the header has 2"),
    (14, "a quote inside a cell that is not quoted"),
    (15, "11", "last"),
]


def test_a_table_of_everything_is_read_by_physical_lines():
    assert told(read(TABLE)) == EXPECTED


def test_blocks_cut_anywhere_give_the_same():
    for place in range(len(TABLE)):
        assert told(read(TABLE[:place], TABLE[place:])) == EXPECTED


@given(st.lists(st.sampled_from([b'"', b",", b"\n", b"\r", b"a", b"\xc3", b"\xa9", b"\0", b'"b', b'c"'])), st.data())
def test_blocks_make_no_difference_to_anything(parts, data):
    table = b"id,text\n" + b"".join(parts)
    places = sorted(data.draw(st.lists(st.integers(0, len(table)), max_size=4)))
    limit = data.draw(st.integers(9, 60))
    blocks = [table[a:b] for a, b in zip([0, *places], [*places, len(table)], strict=True)]
    assert told(read(*blocks, limit=limit)) == told(read(table, limit=limit))


def test_a_stray_quote_does_not_make_records_of_what_a_later_cell_holds():
    table = b'id,text\n1,stray " quote\n2,"x\ny,z\nw"\n3,c\n'
    expected = [(2, "a quote inside a cell that is not quoted"), (3, "2", "x\ny,z\nw"), (6, "3", "c")]
    for place in range(len(table)):
        assert told(read(table[:place], table[place:])) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", [(None, "has no records")]),
        (b"id,text\n", [(None, "has no records")]),
        (b"\xef\xbb\xbfid,text\n1,a\n", [(2, "1", "a")]),
        (b"id,text,id\n1,a,2\n", [(1, "the header has the name 'id' twice")]),
        (b"id,,text\n", [(1, "the header has an empty name")]),
        (b'id,"text\n1,a\n', [(1, "the header: a quote opened here is never closed")]),
        (b"\xff\xfei\0d\0", [(1, "looks like UTF-16 (or binary); expected UTF-8")]),
        (b'id,text\n1,a\n2,"open\n3,b\n', [(2, "1", "a"), (3, "a quote opened here is never closed")]),
        (b"id,text\n1,a\rb\n2,c\n", [(2, "a carriage return outside of quotes"), (3, "2", "c")]),
        (b"id,text\n1,caf\xe9\n2,c\n", [(2, "byte 0xE9 at offset 5 of the record is not UTF-8"), (3, "2", "c")]),
        (b"id,text\n\r\r\n1,a\n", [(2, "a carriage return outside of quotes"), (3, "1", "a")]),
        (b"id,text\n1,a\r", [(2, "a carriage return outside of quotes")]),
        (b"id,text\n1,a\x00b\n", [(2, "NUL characters, not text")]),
        (b'id,text\n1,"caf\xe9\n"\n2,c\n', [(2, "byte 0xE9 at offset 6 of the record is not UTF-8"), (4, "2", "c")]),
        (b"id,text\n\xc3\xa9,\x92\n", [(2, "byte 0x92 at offset 3 of the record is not UTF-8")]),
        (b"id,text,note\n1,a,\0\n", [(2, "NUL characters, not text")]),
        (b"\xef\xbb\xbf", [(None, "has no records")]),
        (b'id,text\n1,"a\n', [(2, "a quote opened here is never closed")]),
        (b'id,text\n1,""\n', [(2, "empty")]),
        (b'text\n""\n', [(2, "empty")]),
        (b'\xef\xbb\xbf"id","text"\r\n1,"""q"""\r\n', [(2, "1", '"q"')]),
        (b"id,text\n1,\n", [(2, "empty")]),
        (b"\n\nid,text\n1,a\n", [(4, "1", "a")]),
        (b'"id","text"\n"1","a"\n', [(2, "1", "a")]),
    ],
)  # fmt: skip
def test_data_that_is_not_a_table_is_reported_with_its_line(data, expected):
    assert told(read(data)) == expected


def test_an_open_quote_beyond_the_limit_is_reported_where_it_opens():
    data = b'id,text\n1,a\n2,"' + b"x" * 5000 + b"\n3,b\n"
    items = told(read(data[:100], data[100:4000], data[4000:], limit=1000))
    assert items[0] == (2, "1", "a")
    assert items[1] == (3, "a quote opened here is not closed within 1000 bytes; the rest is not read")
    assert len(items) == 2


def test_a_line_beyond_the_limit_is_refused_and_the_next_one_read():
    data = b"id,text\n1,a\n2," + b"x" * 5000 + b"\n3,b\n"
    expected = [(2, "1", "a"), (3, "the record is longer than 1000 bytes"), (4, "3", "b")]
    assert told(read(data, limit=1000)) == expected
    assert told(read(data[:100], data[100:2000], data[2000:], limit=1000)) == expected


@pytest.mark.parametrize("cut", [100, 4000])
def test_a_header_beyond_the_limit_makes_no_other_line_the_header(cut):
    data = b"id," + b"x" * 3000 + b"\nid,text\n1,a\n"
    assert told(read(data[:cut], data[cut:], limit=50)) == [(1, "the header: the record is longer than 50 bytes")]


def test_memory_is_bounded_by_the_limit_and_not_by_an_open_quote():
    def blocks():
        yield b'id,text\n1,"'
        for _ in range(3):
            yield b"x\n" * 400
        raise AssertionError("nothing more is asked for")

    (item,) = plan_table(blocks(), Context(SOURCE, "t.csv", 1000), delimiter=",", limit=1000)
    assert (item.line, item.reason) == (2, "a quote opened here is not closed within 1000 bytes; the rest is not read")


def test_a_task_can_be_sent_to_a_worker():
    tasks = list(plan_table(iter([TABLE]), Context(SOURCE, "t.csv", 1000), delimiter=",", limit=1000))
    copies = pickle.loads(pickle.dumps(tasks))  # noqa: S301  # our own
    assert told(item for task in copies for item in task.read()) == EXPECTED


def test_a_long_cell_is_read():
    (item,) = read(b'id,text\n1,"' + b"y\n" * 100_000 + b'"\n')
    assert len(item.text) == 200_000


def test_tabs_and_chat_in_a_cell():
    messages = [{"role": "user", "content": "a\tb"}]
    row = json.dumps(messages).replace('"', '""').encode()
    (item,) = read(b'id\tmessages\n1\t"' + row + b'"\n', delimiter="\t")
    assert json.loads(item.messages) == messages
    (bad,) = read(b"id\tmessages\n1\tnone\n", delimiter="\t")
    assert (bad.line, bad.reason) == (2, "messages is not JSON: Expecting value at character 1")


safe = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@given(st.lists(safe, min_size=1), st.booleans())
def test_what_the_csv_module_writes_comes_back(texts, everything):
    handle = io.StringIO(newline="")
    writer = csv.writer(handle, quoting=csv.QUOTE_ALL if everything else csv.QUOTE_MINIMAL)
    writer.writerow(["id", "text"])
    writer.writerows([[str(number), text] for number, text in enumerate(texts)])
    items = read(handle.getvalue().encode("utf-8"))
    assert [item.text for item in items] == texts
