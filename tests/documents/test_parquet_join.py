"""Row groups that were encoded separately and joined are, byte for byte, the file of a single writer."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.documents.document import parquet_writer
from codex_ml.documents.parquet_join import Joiner, encoded

SCHEMA = pa.schema(
    [
        pa.field("source", pa.large_string()),  # the writer gives it a dictionary
        pa.field("text", pa.large_string()),
        pa.field("size", pa.int64()),
        pa.field("share", pa.float64()),
        pa.field("generated", pa.bool_()),
    ]
)
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "ü", None]),
        st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=9) | st.just("long " * 2000),
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.floats(),
        st.none() | st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


def table(rows):
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(values, kind) for values, kind in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA)


def by_one_writer(path, tables):
    with parquet_writer(path, SCHEMA) as writer:
        for rows in tables:
            writer.write_table(rows)
    return path.read_bytes()


def joined(path, tables):
    with Joiner(path, SCHEMA) as file:
        for rows in tables:
            file.add(encoded(rows))
    return path.read_bytes()


@given(st.lists(ROWS.map(table), max_size=20))
@settings(max_examples=60, deadline=None)
def test_joined_row_groups_are_the_bytes_of_one_writer(tmp_path_factory, tables):
    folder = tmp_path_factory.mktemp("join")
    assert joined(folder / "joined", tables) == by_one_writer(folder / "plain", tables)


@pytest.mark.parametrize("count", [0, 1, 14, 15, 16, 127, 128, 300])
def test_any_number_of_row_groups(tmp_path, count):
    """Lists of Thrift change their form at 15 items, numbers at 64 and 8192."""
    tables = [table([("s", f"text {n}" * (n % 50), n, n / 3, n % 2 == 0)]) for n in range(count)]
    assert joined(tmp_path / "joined", tables) == by_one_writer(tmp_path / "plain", tables)
    found = pq.read_table(tmp_path / "joined")
    assert found.column("size").to_pylist() == list(range(count))


def test_a_wide_schema_and_megabytes_are_read_back(tmp_path):
    random = np.random.Generator(np.random.PCG64(0))
    schema = pa.schema([pa.field(f"column{n}", pa.int64()) for n in range(40)])
    tables = [pa.table([pa.array(random.integers(0, 2**60, 5000)) for _ in range(40)], schema=schema) for _ in range(3)]
    with Joiner(tmp_path / "wide", schema) as file:
        for rows in tables:
            file.add(encoded(rows))
    with pq.ParquetFile(tmp_path / "wide") as file:
        assert file.num_row_groups == 3
        assert [file.read_row_group(n) for n in range(3)] == tables


def test_more_rows_than_a_writer_puts_into_a_group_stay_one_group(tmp_path):
    rows = pa.table([pa.array(np.zeros(1_100_000, dtype=np.int8))], schema=pa.schema([("n", pa.int8())]))
    with Joiner(tmp_path / "long", rows.schema) as file:
        file.add(encoded(rows))
    with pq.ParquetFile(tmp_path / "long") as file:
        assert (file.num_row_groups, file.metadata.num_rows) == (1, 1_100_000)


def test_an_error_leaves_no_footer(tmp_path):
    def write_half():
        with Joiner(tmp_path / "file", SCHEMA) as file:
            file.add(encoded(table([("s", "t", 1, 1.0, True)])))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    with pytest.raises(pa.ArrowInvalid):
        pq.ParquetFile(tmp_path / "file")
