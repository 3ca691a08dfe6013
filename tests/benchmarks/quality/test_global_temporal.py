"""Settings are chosen on validation data that no test uses."""

import numpy as np

from benchmarks.quality.global_temporal import load


def test_validation_data_are_the_last_tenth_of_the_learning_part_and_contain_no_test(tmp_path):
    draw = np.random.default_rng(0)
    minutes = np.sort(draw.integers(0, 1000, 1000))
    lines = [f"user-{draw.integers(20)},item-{draw.integers(30)},{1_500_000_000_000 + n * 60_000}" for n in minutes]
    file = tmp_path / "clicks.csv"
    file.write_text("\n".join(["user,item,ts", *lines]))
    tested, validation = load(str(file)), load(str(file), validation=True)
    assert len(tested.future) > 50
    assert len(validation.future) > 50
    first_test = tested.future["ts"].min()
    for known in (validation.past.steps["ts"], validation.future["ts"], validation.ts):
        assert known.max() < first_test
    assert len(validation.past.steps) + len(validation.future) == len(tested.past.steps)
    assert validation.past.steps["ts"].max() < validation.future["ts"].min()
