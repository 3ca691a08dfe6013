"""The functions that the profile of an epoch times exist."""

import pytest

from benchmarks.speed.epoch_profile import PHASES
from model.learning import training


@pytest.mark.parametrize("phase", PHASES)
def test_every_timed_function_exists(phase):
    for owner, name in PHASES[phase]:
        assert callable(getattr(owner, name))


def test_the_item_loss_can_be_replaced_in_training():
    assert callable(training.item_loss)
