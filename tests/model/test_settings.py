"""Settings that the model cannot use are rejected, without importing torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from model import settings
from model.settings import SEQUENCE_ENCODERS, WITH_ATTENTION_HEADS, ModelSettings, TrainingSettings, without_graph

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("encoder", sorted(WITH_ATTENTION_HEADS))
def test_heads_must_divide_the_width_of_an_encoder_that_has_heads(encoder):
    with pytest.raises(ValueError, match="dim = 64 is not divisible by heads = 3"):
        ModelSettings(sequence_encoder=encoder, heads=3)
    assert ModelSettings(sequence_encoder=encoder, heads=4).heads == 4


def test_an_encoder_without_heads_takes_any_width(monkeypatch):
    monkeypatch.setattr(settings, "WITH_ATTENTION_HEADS", WITH_ATTENTION_HEADS - {"sasrec"})
    assert ModelSettings(dim=63, heads=2).dim == 63


def test_encoders_with_heads_are_encoders():
    assert SEQUENCE_ENCODERS.keys() >= WITH_ATTENTION_HEADS


def test_wrong_heads_are_rejected_without_importing_torch():
    code = (
        "import sys\nfrom model.settings import ModelSettings\n"
        "try: ModelSettings(heads=3)\nexcept ValueError: print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "False"


def test_without_the_graph_there_is_no_warm_up_and_no_transfer_loss():
    alone = without_graph(TrainingSettings())
    assert (alone.w_global, alone.w_transfer, alone.warm_up_epochs, alone.increment_warm_up_epochs) == (0, 0, 0, 0)
