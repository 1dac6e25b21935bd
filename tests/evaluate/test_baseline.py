"""`evaluate.compare_to`: a stored result is checked before the work, and compared with after it."""

import json

import numpy as np
import pandas as pd
import pytest

from codex_ml.core.errors import UserError
from codex_ml.documents.document import Document, write_documents
from codex_ml.evaluate.baseline import compare_with, open_baseline
from codex_ml.evaluate.config import Evaluate
from codex_ml.evaluate.item_tables import content_hash
from codex_ml.inference.comparison_files import Comparisons

NLL = np.random.default_rng(7).lognormal(4, 0.5, size=30).tolist()
SETTINGS = Evaluate(compare_to="data/baselines/first", bootstrap=200)


@pytest.fixture
def written(tmp_path, monkeypatch, written_result):
    """Write a result on the documents of test.parquet: `written(folder, factor)`."""
    monkeypatch.chdir(tmp_path)
    texts = [f"print({number})" for number in range(30)]
    write_documents(tmp_path / "test.parquet", [
        Document("flask", f"{n}.py", f"doc{n}", "", "MIT", "python", text=text) for n, text in enumerate(texts)
    ])  # fmt: skip

    def written(folder, factor):
        one = written_result([value * factor for value in NLL])
        one.texts["content"] = [content_hash(text) for text in texts]
        (one.write(tmp_path / folder) / "plots").mkdir()
        return tmp_path / folder

    return written


def test_without_a_baseline_nothing_is_opened(tmp_path):
    assert open_baseline(Evaluate(), tmp_path / "missing.parquet") is None


def test_an_evaluation_is_compared_with_the_baseline_as_a(written, tmp_path):
    written("data/baselines/first", 1.0)
    out = written("reports/evaluate", 0.9)
    baseline = open_baseline(SETTINGS, tmp_path / "test.parquet")
    found = compare_with(baseline, out, SETTINGS, seed=3)
    assert (found.seed, found.resamples) == (3, 200)
    assert Comparisons.read(out / "results/comparison.json") == found
    assert found.comparisons[0].a.name == "data/baselines/first"
    plot = pd.read_csv(out / "plots/compared.csv").set_index("metric")
    assert list(plot.columns) == ["task", "difference", "low", "high", "p_holm", "verdict"]
    assert list(plot.index) == ["bits_per_byte", "perplexity", "token_accuracy"]
    row = plot.loc["bits_per_byte"]
    assert row.low < row.difference < row.high < 0
    assert row.difference == pytest.approx(-0.1 * sum(NLL) / np.log(2) / 3000, rel=1e-5)
    assert row.verdict == "better"


def test_the_comparison_has_the_same_bytes_again(written, tmp_path):
    written("data/baselines/first", 1.0)
    out = written("reports/evaluate", 0.9)

    def files():
        compare_with(open_baseline(SETTINGS, tmp_path / "test.parquet"), out, SETTINGS, seed=3)
        return [(out / name).read_bytes() for name in ("results/comparison.json", "plots/compared.csv")]

    first = files()
    assert str(tmp_path).encode() not in b"".join(first)
    assert files() == first


def test_a_baseline_on_other_documents_is_refused_before_the_work(written, tmp_path):
    folder = written("data/baselines/first", 1.0)
    table = folder / "results/documents.parquet"
    frame = pd.read_parquet(table)
    frame.loc[0, "content"] = "other"
    frame.to_parquet(table)
    with pytest.raises(UserError) as error:
        open_baseline(SETTINGS, tmp_path / "test.parquet")
    assert str(error.value) == (
        "evaluate.compare_to: data/baselines/first and the test split are results on different items of `documents`: "
        "1 with other content (doc0); name a result on this test split, or set it to ''"
    )


def test_a_baseline_that_is_not_whole_is_refused_before_the_work(written, tmp_path):
    (written("data/baselines/first", 1.0) / "results/documents.parquet").unlink()
    with pytest.raises(
        UserError, match=r"data/baselines/first/results/documents\.parquet is missing, so the result is not"
    ):
        open_baseline(SETTINGS, tmp_path / "test.parquet")


def test_the_record_of_the_stage_tells_what_differs(written, tmp_path):
    for folder, seed in (("data/baselines/first", 1), ("reports/evaluate", 2)):
        record = {"schema": "codex-ml/lineage/1", "stage": "evaluate", "params": {"seed": seed}, "deps": {}}
        (written(folder, seed / 2) / "lineage.json").write_text(json.dumps(record))
    found = compare_with(open_baseline(SETTINGS, tmp_path / "test.parquet"), tmp_path / "reports/evaluate", SETTINGS, 1)
    assert [(d.name, d.a, d.b) for d in found.comparisons[0].inputs] == [("seed", "1", "2")]
    assert found.comparisons[0].notes == []
