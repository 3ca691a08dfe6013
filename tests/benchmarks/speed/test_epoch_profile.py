"""The profile of an epoch times functions that training has."""

import pytest

from benchmarks.speed.epoch_profile import PHASES
from model.learning import training


@pytest.mark.parametrize("phase", PHASES)
def test_every_timed_function_exists(phase):
    for owner, name in PHASES[phase]:
        assert callable(getattr(owner, name))


def test_the_item_loss_is_looked_up_where_it_is_replaced():
    assert callable(training.item_loss)
