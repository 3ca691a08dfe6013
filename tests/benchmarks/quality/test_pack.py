"""Packed results contain the same figures and ranks as the loose files."""

import json

import numpy as np
import pytest

from benchmarks.quality import pack
from benchmarks.quality.rank_archive import MAX_RANK, RankArchive, archive_file, loose_file, write_loose

SASREC = ("SASRec", 0)
CREATE = ("CREATE, users' rows as fast as items'", 1)


def ranks_of(seed: int, tests: int = 50) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {seen: draw.integers(0, 500, tests) for seen in ("filtered", "unfiltered")}


def write_run(folder, run, ranks, ndcg=0.5):
    folder.mkdir(exist_ok=True)
    write_loose(folder, "shop", run, ranks)
    line = {"variant": run[0], "seed": run[1], "scores": {"last, filtered": {"ndcg@10": ndcg}}, "learn_s": 1.5}
    line["breadth"] = {seen: {"coverage@10": 0.5, "popularity_bias": 1.0} for seen in ranks}
    with (folder / "shop.jsonl").open("a") as lines:
        lines.write(json.dumps(line) + "\n")


def lines_in(folder):
    return [json.loads(line) for line in (folder / "shop.jsonl").read_text().splitlines()]


def test_packed_ranks_are_the_loose_ranks_capped_at_the_largest_rank_of_a_figure(tmp_path):
    written = {run: ranks_of(seed) for seed, run in enumerate((SASREC, CREATE))}
    for run, ranks in written.items():
        write_run(tmp_path / "build", run, ranks)
    (tmp_path / "results").mkdir()
    assert pack.pack_dataset(tmp_path / "build", tmp_path / "results", "shop") == 2
    archive = RankArchive(tmp_path / "results", "shop")
    assert set(archive.packed_runs) == set(written)
    for run, ranks in written.items():
        for seen, expected in ranks.items():
            assert archive.ranks(run, seen).tolist() == np.minimum(expected, MAX_RANK).tolist()


def test_a_second_pack_adds_new_runs_and_replaces_runs_that_were_measured_again(tmp_path):
    (tmp_path / "results").mkdir()
    write_run(tmp_path / "first", SASREC, ranks_of(0), ndcg=0.1)
    pack.pack_dataset(tmp_path / "first", tmp_path / "results", "shop")
    write_run(tmp_path / "second", SASREC, ranks_of(5), ndcg=0.2)
    write_run(tmp_path / "second", CREATE, ranks_of(1), ndcg=0.3)
    pack.pack_dataset(tmp_path / "second", tmp_path / "results", "shop")
    found = {
        (line["variant"], line["seed"]): line["scores"]["last, filtered"]["ndcg@10"]
        for line in lines_in(tmp_path / "results")
    }
    assert found == {SASREC: 0.2, CREATE: 0.3}
    packed = RankArchive(tmp_path / "results", "shop").ranks(SASREC, "filtered")
    assert packed.tolist() == np.minimum(ranks_of(5)["filtered"], MAX_RANK).tolist()


def test_a_loose_file_takes_precedence_over_the_archive(tmp_path):
    write_run(tmp_path, SASREC, ranks_of(0))
    pack.pack_dataset(tmp_path, tmp_path, "shop")
    write_loose(tmp_path, "shop", SASREC, ranks_of(7))
    expected = np.minimum(ranks_of(7)["filtered"], MAX_RANK)
    assert RankArchive(tmp_path, "shop").ranks(SASREC, "filtered").tolist() == expected.tolist()


def test_a_folder_without_loose_files_can_be_packed_into_itself(tmp_path):
    write_run(tmp_path, SASREC, ranks_of(0))
    pack.pack_dataset(tmp_path, tmp_path, "shop")
    loose_file(tmp_path, "shop", SASREC).unlink()
    before = archive_file(tmp_path, "shop").read_bytes(), lines_in(tmp_path)
    pack.pack_dataset(tmp_path, tmp_path, "shop")
    assert (archive_file(tmp_path, "shop").read_bytes(), lines_in(tmp_path)) == before


def test_runs_of_different_data_are_not_packed_together(tmp_path):
    write_run(tmp_path, SASREC, ranks_of(0))
    write_run(tmp_path, CREATE, ranks_of(1, tests=49))
    with pytest.raises(ValueError, match=r"\[49, 50\] tests"):
        pack.pack_dataset(tmp_path, tmp_path, "shop")


def test_the_error_for_missing_ranks_names_the_command_that_measures_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m benchmarks\.quality\.global_temporal --out"):
        RankArchive(tmp_path, "shop").ranks(SASREC, "filtered")


def test_a_packed_prequential_run_has_the_figures_that_its_report_prints(tmp_path):
    cycle = {"at": 100, "cpu_s": 2.0, "promoted": True, "reason": "promoted: the first version", "metrics": {}}
    line = {"part": "streams", "stream": "shop", "events": 100, "variant": None, "seed": 0}
    line |= {"models": {"create": {"hit@10": 0.5}}, "versions": {"create": [cycle], "frozen": [cycle]}}
    (tmp_path / "build").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "build" / "runs.jsonl").write_text(2 * (json.dumps(line) + "\n"))
    assert pack.pack_prequential(tmp_path / "build", tmp_path / "results") == 1
    [packed] = [json.loads(text) for text in (tmp_path / "results" / "runs.jsonl").read_text().splitlines()]
    assert packed == line | {"versions": {"create": [{"cpu_s": 2.0, "promoted": True}]}}
