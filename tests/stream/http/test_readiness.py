"""When a worker is ready."""

import pytest

from stream.http.readiness import not_ready

WELL = {"joined": True, "confirmed": True, "paused": False, "version_problem": ""}


def test_a_worker_whose_partitions_answer_is_ready():
    assert not_ready({0: "answering", 1: "answering"}, **WELL) == []


def test_a_worker_that_the_group_gave_no_partition_is_ready():
    """There can be more workers than partitions. Such a worker has no offsets to commit, so nothing confirms it."""
    assert not_ready({}, **WELL | {"confirmed": False}) == []


@pytest.mark.parametrize(
    ("phases", "more", "said"),
    [
        ({0: "opening"}, {}, "partition 0 is opening"),
        ({0: "opening"}, {"confirmed": False}, "partition 0 is opening"),
        ({0: "catching up", 1: "answering", 2: "catching up"}, {}, "partitions 0, 2 are catching up"),
        ({0: "faulted"}, {}, "partition 0 is faulted"),
        ({0: "answering"}, {"paused": True}, "`anabranch resume` continues"),
        ({0: "answering"}, {"confirmed": False}, "does not confirm it"),
        ({}, {"joined": False}, "has not assigned"),
        ({0: "answering"}, {"version_problem": "version 7 is named and not loaded"}, "version 7 is named"),
    ],
)
def test_each_reason_is_a_sentence(phases, more, said):
    [problem] = not_ready(phases, **WELL | more)
    assert said in problem


def test_all_reasons_are_given_at_once():
    assert (
        len(not_ready({0: "opening", 1: "faulted"}, joined=False, confirmed=False, paused=True, version_problem="x"))
        == 6
    )
