"""Results of any data set become tables. For a folder without results the error names the command."""

import gzip
import sys

import numpy as np
import pytest

from benchmarks.quality import global_temporal as quality
from benchmarks.quality import global_temporal_report as quality_report

SHORT = {"holdout_events": 0, "last_epochs": 0, "epochs": 1, "w_global": 0.0}


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Two models with two seeds and the untrained rivals, on a small data set of random clicks."""
    draw = np.random.default_rng(0)
    clicks = [f"user-{draw.integers(30)},item-{draw.integers(12)},{1_500_000_000 + n}" for n in range(800)]
    with gzip.open(tmp_path / "mine.csv.gz", "wt") as file:
        file.write("\n".join(["user,item,ts", *clicks]))
    monkeypatch.setitem(quality.VARIANTS, "SASRec", ({"dim": 8}, SHORT | {"warm_up_epochs": 0, "w_transfer": 0.0}))
    monkeypatch.setitem(quality.VARIANTS, "CREATE", ({"dim": 8}, SHORT | {"warm_up_epochs": 1}))
    (tmp_path / "found").mkdir()
    for job in [(None, 0), ("SASRec", 0), ("SASRec", 1), ("CREATE", 0), ("CREATE", 1)]:
        quality.record(quality.run(quality.Job(str(tmp_path / "mine.csv.gz"), *job, False)), tmp_path / "found")
    return tmp_path


def printed(monkeypatch, capsys, *arguments: str) -> list[list[str]]:
    monkeypatch.setattr(sys, "argv", ["quality_report", *arguments])
    capsys.readouterr()
    quality_report.main()
    return [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]


def test_rows_are_means_over_seeds_with_their_cost_and_the_best_is_first(measured, monkeypatch, capsys):
    monkeypatch.setenv("ANABRANCH_DATASETS", str(measured))
    rows = printed(monkeypatch, capsys, str(measured / "found"))
    [head] = [row for row in rows if row[0] == "variant"]
    by_name = {row[0]: dict(zip(head, row, strict=True)) for row in rows if len(row) == len(head)}
    assert by_name["CREATE (2 seeds)"]["epochs"] == "1 + 1"
    assert "±" in by_name["SASRec (2 seeds)"]["successive, filtered"]
    assert "±" not in by_name["popularity"]["successive, filtered"]
    order = [
        float(row["successive, filtered"].split(" ±")[0]) for name, row in by_name.items() if row["MRR"][0].isdigit()
    ]
    assert order == sorted(order, reverse=True)
    assert len(order) == 6
    assert [row for row in rows if row[0] == "CREATE over SASRec" and "%" in row[1]]


def test_the_error_names_a_folder_without_results(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="no results in"):
        printed(monkeypatch, capsys, str(tmp_path))
