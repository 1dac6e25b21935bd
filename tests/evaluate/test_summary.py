"""The numbers of a test split are functions of sums over its documents, and say why one is absent."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codex_ml.core.errors import UserError
from codex_ml.core.strict_json import dump_json, parse_json
from codex_ml.evaluate.groups import length_bucket
from codex_ml.evaluate.item_tables import read_columns, read_numbers, write_table
from codex_ml.evaluate.metrics.registry import load_metrics
from codex_ml.evaluate.summary import Resampling, metric_value
from codex_ml.evaluate.units import pooled_sums, read_pools

HOW = Resampling(resamples=200, confidence=0.95, seed=1)


def value_of(name: str, rows: list[list[float]], absent: str | None = None) -> Any:
    """The metric of this name over units with these columns."""
    metrics = load_metrics()
    return metric_value(metrics, metrics[name], np.array(rows, dtype=float), HOW, absent)


def test_a_value_is_the_ratio_of_sums_and_has_an_interval_around_it() -> None:
    rows = [[math.log(2) * (60 * k + k % 5), 100.0 * k] for k in range(1, 21)] + [[math.log(2) * 42, 2.0]]
    found = value_of("bits_per_byte", rows)
    assert found.value == pytest.approx((60 * 210 + 40 + 42) / (100 * 210 + 2), abs=1e-9)
    assert found.low < found.value < found.high
    assert (found.units, found.higher_is_better, found.why) == (21, False, None)


def test_perplexity_that_overflows_is_absent_and_the_result_stays_json() -> None:
    assert value_of("perplexity", [[709.0, 1.0]]).value == pytest.approx(math.exp(709))
    found = value_of("perplexity", [[710.0, 1.0]])
    assert (found.value, found.low, found.why) == (None, None, "not finite: too large for a double")
    assert parse_json(dump_json(found.as_json())) == found.as_json()


def test_the_interval_of_a_perplexity_is_that_of_its_nats_on_another_scale() -> None:
    random = np.random.default_rng(3)
    size = np.ceil(random.lognormal(5, 1, size=40))
    rows = np.stack([size * random.lognormal(3, 0.5, size=40), size], axis=1).tolist()
    bits, perplexity = value_of("bits_per_byte", rows), value_of("byte_perplexity", rows)
    assert [perplexity.low, perplexity.high] == pytest.approx([2**bits.low, 2**bits.high], rel=1e-6)
    assert 0 < perplexity.low < perplexity.value < perplexity.high


def test_a_perplexity_whose_upper_limit_is_too_large_for_a_double_has_no_interval() -> None:
    found = value_of("word_perplexity", [[700.0 + 20 * (k % 3 - 1), 1.0] for k in range(30)])
    assert found.value == pytest.approx(math.exp(700))
    assert (found.low, found.high) != (None, None)
    found = value_of("word_perplexity", [[700.0 + 90 * (k % 3 - 1), 1.0] for k in range(30)])
    assert (found.low, found.high) == (None, None)
    assert found.why.startswith("no interval")


def test_a_value_names_the_method_of_its_interval_where_it_has_one() -> None:
    rows = [[math.log(2) * (60 * k + k % 5), 100.0 * k] for k in range(1, 31)]
    assert value_of("bits_per_byte", rows).method == value_of("byte_perplexity", rows).method == "bootstrap"
    assert value_of("exact_match", [[0.0, 1.0]] * 164).method == "exact"
    assert value_of("bits_per_byte", rows[:3]).method is None


def test_one_document_has_a_value_but_no_interval() -> None:
    found = value_of("bits_per_byte", [[math.log(2) * 6, 4.0]])
    assert (found.value, found.low, found.high) == (1.5, None, None)
    assert found.why == "no interval: 1 independent units; at least 20 are needed"


def test_documents_of_no_bytes_have_no_bits_per_byte() -> None:
    assert value_of("bits_per_byte", [[3.0, 0.0]] * 12).why == "nothing to divide by"


def test_an_absent_value_says_the_given_reason() -> None:
    found = value_of("bits_per_byte", [[3.0, 2.0]] * 12, absent="the tokenizer loses text")
    assert (found.value, found.low, found.why) == (None, None, "the tokenizer loses text")


def test_a_table_gives_back_numbers_texts_and_units(tmp_path: Path) -> None:
    with write_table(tmp_path, "documents", texts=["source"], numbers=["nll", "bytes"]) as table:
        for item, unit, nll in (("a", "u", 1.5), ("b", "v", math.nan), ("c\n", "u", 2)):
            table.add({"item": item, "unit": unit, "source": 'say "so"'}, {"nll": nll, "bytes": 3})
    file = tmp_path / "documents.parquet"
    np.testing.assert_array_equal(read_numbers(file, ["bytes", "nll"]), [[3, 1.5], [3, math.nan], [3, 2]])
    assert read_pools(file).pool.tolist() in ([0, 1, 0], [1, 0, 1])
    assert (tmp_path / "documents.ndjson").read_text(encoding="utf-8").splitlines()[1:] == [
        r'{"bytes": 3, "item": "b", "nll": null, "source": "say \"so\"", "unit": "v"}',
        r'{"bytes": 3, "item": "c\n", "nll": 2, "source": "say \"so\"", "unit": "u"}',
    ]


def test_a_table_of_many_row_groups_has_every_row_in_order(tmp_path: Path) -> None:
    with write_table(tmp_path, "documents", texts=[], numbers=["nll"]) as table:
        for number in range(10_000):
            table.add({"item": str(number), "unit": str(number % 7)}, {"nll": number})
    file = tmp_path / "documents.parquet"
    np.testing.assert_array_equal(read_numbers(file, ["nll"])[:, 0], np.arange(10_000))
    units = read_pools(file)
    assert (units.pools, units.count) == (7, 7)
    assert len(set(zip(units.pool.tolist(), (np.arange(10_000) % 7).tolist(), strict=True))) == 7


def test_a_table_that_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with write_table(tmp_path, "documents", texts=[], numbers=["nll"]) as table:
            table.add({"item": "a", "unit": "a"}, {"nll": 1.0})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_table_can_be_read(tmp_path: Path) -> None:
    with write_table(tmp_path, "documents", texts=["source"], numbers=["nll"]):
        pass
    file = tmp_path / "documents.parquet"
    assert read_numbers(file, ["nll"]).shape == (0, 1)
    assert read_pools(file).pool.shape == (0,)
    assert read_columns(file, ["source"], lambda batch: np.array(batch.column(0).to_pylist())).shape == (0,)


def test_documents_are_put_into_buckets_by_bytes() -> None:
    names = ["0 to 255", "0 to 255", "256 to 1023", "1024 to 4095", "65536 and more"]
    assert length_bucket(np.array([0, 255, 256, 4095, 10**9])).tolist() == names


def test_more_units_than_pools_are_put_together_and_no_unit_is_split(tmp_path: Path) -> None:
    with write_table(tmp_path, "documents", texts=[], numbers=["nll"]) as table:
        for number in range(5000):
            table.add({"item": str(number), "unit": str(number % 1000)}, {"nll": number})
    file = tmp_path / "documents.parquet"
    units = read_pools(file, limit=100)
    assert (units.pools, units.count) == (100, 1000)
    assert (
        read_pools(file, limit=990).pools == len(set(read_pools(file, limit=990).pool)) < 990
    )  # an empty one is no unit
    assert (units.pool[:1000] == units.pool[1000:2000]).all()
    sums = pooled_sums(file, ["nll"], units)
    assert sums.shape == (100, 1)
    assert sums.sum() == sum(range(5000))
    assert sums[units.pool[7], 0] == sum(number for number in range(5000) if units.pool[number] == units.pool[7])
    assert np.bincount(units.pool).min() >= 5  # pools are about equal: 50 rows each


def test_a_number_with_the_name_of_a_text_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a metric has the column source, which documents\.parquet has for a text"):
        write_table(tmp_path, "documents", texts=["source"], numbers=["nll", "source"]).__enter__()
    assert list(tmp_path.iterdir()) == []
