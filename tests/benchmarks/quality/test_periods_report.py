"""The report on periods: means over the tested periods, and a table of its own for the second stage."""

import json

from benchmarks.quality.periods_report import table

ALONE = {"data": "diginetica", "seed": 0, "share": 0.125, "cpu_s": 4.0, "recall@20": 50.0, "mrr@20": 20.0, "tests": 100}
READING = {"recall@20": 60.0, "mrr@20": 30.0, "candidates": 70.0, "learn_s": 3.0, "test_s": 2.0}


def written(tmp_path, *lines):
    file = tmp_path / "some.jsonl"
    file.write_text("".join(json.dumps(ALONE | line) + "\n" for line in lines))
    return "\n".join(table(file))


def ranked(period, **change):
    line = {"variant": "ranker", "period": period, "first_ranker_cpu_s": 5.0 if period == 0 else 0.0}
    for name in ("strict", "streaming"):
        line |= {f"{name}_{figure}": value for figure, value in (READING | change).items()}
    return line


def test_a_variant_without_the_second_stage_has_one_table(tmp_path):
    text = written(tmp_path, {"variant": "replay", "period": 0}, {"variant": "replay", "period": 1, "recall@20": 52.0})
    assert "| replay, seed 0, periods 0 to 1 | 51.00 / 20.00 |" in text
    assert "second stage" not in text


def test_the_second_stage_has_both_readings_its_candidates_and_its_seconds(tmp_path):
    text = written(tmp_path, ranked(0), ranked(1, **{"recall@20": 62.0, "candidates": 80.0}))
    cells = "61.00 / 30.00 | 62.00 / 30.00 | 75.0 | 5 | 6 | 4 | 200"
    assert f"| ranker, seed 0, strict | {cells} |" in text
    assert f"| ranker, seed 0, streaming | {cells} |" in text


def test_published_means_stand_only_beside_means_of_all_sessions_and_periods(tmp_path):
    def is_beside(**change):
        return "published: ADER" in written(tmp_path, {"variant": "replay", "period": 15, "share": 1.0} | change)

    assert is_beside()
    assert not is_beside(period=2)
    assert not is_beside(share=0.125)
