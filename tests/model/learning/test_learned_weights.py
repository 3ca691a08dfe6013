"""CREATE learns, and the same seed gives the same weights."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from model.encoders.create import Create
from model.encoders.histories import Histories
from model.learning.training import Schedule, train
from state.sequences import from_events
from tests.model.examples import QUICK, SMALL, cycling, learned

ROOT = Path(__file__).parents[3]


def test_the_model_can_learn_the_sequences_of_ten_users_exactly():
    events = cycling()
    histories = Histories(np.arange(0, 121, 12), (from_events(events).steps["item"].astype(np.int64) - 99))
    model = Create(7, SMALL)
    train(model, histories, QUICK, Schedule(epochs=60, learning_rate=3e-3, seed=1, warm_up_epochs=5, from_scratch=True))
    inputs = histories.newest(6)
    following = (inputs.items.reshape(-1, 6)[:, -1] % 7) + 1
    scores = model.encode(inputs) @ model.items.weight.T
    scores[:, 0] = -torch.inf
    assert scores.argmax(1).tolist() == following.tolist()


def test_with_a_large_catalogue_only_rows_that_a_batch_touches_change():
    lazy = msgspec.structs.replace(QUICK, loss="sampled", lazy_items=1, negatives=7)
    histories = Histories(np.arange(0, 121, 12), (from_events(cycling()).steps["item"].astype(np.int64) - 99))
    model = Create(1000, SMALL)
    before = model.items.weight.detach().clone()
    train(model, histories, lazy, Schedule(epochs=1, learning_rate=3e-3, seed=1))
    moved = (model.items.weight != before).any(1)
    assert moved[1:8].all()
    assert moved.sum() < 50


def test_lazy_updates_learn_the_sequences_exactly_too():
    lazy = msgspec.structs.replace(QUICK, loss="sampled", lazy_items=1)
    histories = Histories(np.arange(0, 121, 12), (from_events(cycling()).steps["item"].astype(np.int64) - 99))
    model = Create(7, SMALL)
    train(model, histories, lazy, Schedule(epochs=60, learning_rate=3e-3, seed=1, warm_up_epochs=5, from_scratch=True))
    inputs = histories.newest(6)
    scores = model.encode(inputs) @ model.items.weight.T
    scores[:, 0] = -torch.inf
    assert scores.argmax(1).tolist() == ((inputs.items.reshape(-1, 6)[:, -1] % 7) + 1).tolist()


@pytest.mark.parametrize("lazily", [{}, {"loss": "sampled", "lazy_items": 1}])
def test_the_same_seed_gives_the_same_weights(lazily):
    torch.manual_seed(1)
    one = learned(cycling(), **lazily)
    torch.manual_seed(2)
    two = learned(cycling(), **lazily)
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(a, b)


DIGEST_SCRIPT = """
import hashlib
import numpy as np
from model.evaluation.recorded_stream import as_events
from model.settings import ModelSettings
from tests.model.examples import learned

users, items = zip(*[(f"user-{n % 10}", f"item-{(n // 10 + n) % 7}") for n in range(120)])
events, _ = as_events(users, items, 1_500_000_000_000 + np.arange(120) * 1000)
trained = learned(events, model=ModelSettings(dim=16))  # with dropout, which is random too
weights = b"".join(weight.detach().numpy().tobytes() for weight in trained.model.parameters())
print(hashlib.sha256(weights + repr((trained.vocabulary.ids, trained.fusion)).encode()).hexdigest())
"""


def test_a_process_with_another_string_hash_seed_gives_the_same_weights():
    children = [
        subprocess.Popen(
            [sys.executable, "-c", DIGEST_SCRIPT], env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for seed in ("1", "2")
    ]  # fmt: skip
    digests = [child.communicate(timeout=300)[0].strip() for child in children]
    assert len(digests[0]) == 64
    assert digests[0] == digests[1]


def test_an_item_keeps_its_index_when_the_vocabulary_grows():
    first = learned(cycling(items=5))
    second = learned(cycling(items=7), first)
    assert second.vocabulary.ids[:5] == first.vocabulary.ids
    assert len(second.vocabulary) == 7
    assert second.parent == "000001"
    assert {"ndcg@10", "champion_ndcg@10"} <= second.metrics.keys()
