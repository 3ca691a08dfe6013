"""CREATE learns, is deterministic, survives publication, and ranks as it says."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from model.encoders.create import Create
from model.encoders.histories import Histories, pack
from model.errors import ArtifactError
from model.learning.cycle import Trained, learn
from model.learning.training import train
from model.learning.versions import list_versions, load, prune, publish
from model.ranking.fusion import MODEL_ONLY, Fusion, with_set_weights
from model.ranking.ranker import Ranker
from model.settings import ModelSettings, RankingSettings, TrainingSettings
from state.events import make_events
from state.graph import MemoryGraph
from state.sequences import Sequences, from_events
from state.settings import StateSettings

ROOT = Path(__file__).parents[3]
SMALL = ModelSettings(dim=16, dropout=0.0)
STATE = StateSettings(neighbours_per_item=8)
QUICK = TrainingSettings(warm_up_epochs=2, epochs=3)


def cycling(users: int = 10, items: int = 7, steps: int = 12) -> np.ndarray:
    """Every user goes through the items in a circle: what follows is certain."""
    n = np.arange(users * steps)
    item = (n // users + n % users) % items + 100
    return make_events(n % users + 1, item, ts=1_000_000_000_000 + n * 1000, offset=n)


def learned(
    events: np.ndarray, champion: Trained | None = None, seed: int = 0, model: ModelSettings = SMALL, **training: Any
) -> Trained:
    graph = MemoryGraph(STATE)
    graph.apply(events)
    known = np.unique(events["item"])
    new = known if champion is None else known[champion.vocabulary.lookup(known) == 0]
    settings = msgspec.structs.replace(QUICK, **training)
    names = {i: f"item-{i}" for i in new.tolist()}
    parent = "000001" if champion else None
    return learn(
        champion, parent, from_events(events), names, graph.rows,
        model=model, training=settings, ranking=RankingSettings(), state=STATE, seed=seed,
    )  # fmt: skip


def test_ten_users_can_be_learned_by_heart():
    events = cycling()
    histories = Histories(np.arange(0, 121, 12), (from_events(events).steps["item"].astype(np.int64) - 99))
    model = Create(7, SMALL)
    train(model, histories, QUICK, warm_up_epochs=5, epochs=60, learning_rate=3e-3, seed=1, fresh=True)
    inputs = histories.newest(6)
    following = (inputs.items.reshape(-1, 6)[:, -1] % 7) + 1
    scores = model.encode(inputs) @ model.items.weight.T
    scores[:, 0] = -torch.inf
    assert scores.argmax(1).tolist() == following.tolist()


@pytest.mark.parametrize("loss", ["sampled", "scalable"])
def test_a_large_catalogue_moves_only_the_rows_that_a_batch_touches(loss):
    lazy = msgspec.structs.replace(
        QUICK, loss=loss, lazy_items=1, negatives=7, scalable_buckets=1, scalable_bucket_size=7
    )
    histories = Histories(np.arange(0, 121, 12), (from_events(cycling()).steps["item"].astype(np.int64) - 99))
    model = Create(1000, SMALL)
    with torch.no_grad():
        model.items.weight[1:8] += 10.0 if loss == "scalable" else 0.0  # buckets take what lies far out
    before = model.items.weight.detach().clone()
    train(model, histories, lazy, warm_up_epochs=0, epochs=1, learning_rate=3e-3, seed=1, fresh=False)
    moved = (model.items.weight != before).any(1)
    assert moved[1:8].all()
    assert moved.sum() < 50


def test_what_is_moved_lazily_is_learned_by_heart_too():
    lazy = msgspec.structs.replace(QUICK, loss="sampled", lazy_items=1)
    histories = Histories(np.arange(0, 121, 12), (from_events(cycling()).steps["item"].astype(np.int64) - 99))
    model = Create(7, SMALL)
    train(model, histories, lazy, warm_up_epochs=5, epochs=60, learning_rate=3e-3, seed=1, fresh=True)
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


DIGEST = """
import hashlib
import numpy as np
from model.evaluation.global_temporal import as_events
from model.settings import ModelSettings
from tests.model.encoders.test_create import learned

users, items = zip(*[(f"user-{n % 10}", f"item-{(n // 10 + n) % 7}") for n in range(120)])
events, _ = as_events(users, items, 1_500_000_000_000 + np.arange(120) * 1000)
trained = learned(events, model=ModelSettings(dim=16))  # with dropout, which is drawn too
weights = b"".join(weight.detach().numpy().tobytes() for weight in trained.model.parameters())
print(hashlib.sha256(weights + repr((trained.vocabulary.ids, trained.fusion)).encode()).hexdigest())
"""


def test_another_process_in_which_strings_hash_otherwise_gives_the_same_weights():
    children = [
        subprocess.Popen(
            [sys.executable, "-c", DIGEST], env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for seed in ("1", "2")
    ]  # fmt: skip
    digests = [child.communicate(timeout=60)[0].strip() for child in children]
    assert len(digests[0]) == 64
    assert digests[0] == digests[1]


def test_an_item_keeps_its_index_when_the_vocabulary_grows():
    first = learned(cycling(items=5))
    second = learned(cycling(items=7), first)
    assert second.vocabulary.ids[:5] == first.vocabulary.ids
    assert len(second.vocabulary) == 7
    assert second.parent == "000001"
    assert {"ndcg@10", "champion_ndcg@10"} <= second.metrics.keys()


def test_a_published_version_loads_as_it_was(tmp_path):
    trained = learned(cycling())
    version = publish(str(tmp_path), "create", trained, {0: 120})
    again = load(str(tmp_path), "create", version.manifest.version, version.manifest_sha256)
    assert again.manifest.offsets == {0: 120}
    assert again.trained.vocabulary.ids == trained.vocabulary.ids
    for a, b in zip(again.trained.model.parameters(), trained.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("file", ["weights.safetensors", "items.msgpack", "manifest.json"])
def test_a_version_that_is_not_what_it_says_is_refused_by_the_name_of_the_file(tmp_path, file):
    version = publish(str(tmp_path), "create", learned(cycling()), {})
    path = tmp_path / "create" / "000001" / file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=file):
        load(str(tmp_path), "create", "000001", version.manifest_sha256)


def test_versions_live_in_any_store_and_the_serving_one_is_never_pruned():
    url = "memory://artifacts"
    trained = learned(cycling())
    for _ in range(3):
        publish(url, "create", trained, {})
    assert prune(url, "create", 1, needed=["000001"]) == ["000002"]
    assert [m.version for m in list_versions(url, "create")] == ["000001", "000003"]


def one_user(*items: int) -> Sequences:
    n = np.arange(len(items))
    events = make_events(np.ones(len(items)), items, ts=1_000_000_000_000 + n, offset=n)
    return from_events(events)


@pytest.mark.parametrize("because", [False, True])
def test_with_all_weights_0_the_graph_changes_nothing(because):
    trained = learned(cycling())
    graph = MemoryGraph(STATE)
    graph.apply(cycling())
    ranking = Ranker(trained.model, trained.vocabulary, MODEL_ONLY, RankingSettings(because=because))
    user = one_user(100, 101, 102)
    with_graph, without = ranking.rank(user, graph, 5), ranking.rank(user, MemoryGraph(STATE), 5)
    assert with_graph.items.tobytes() == without.items.tobytes()
    assert with_graph.scores.tobytes() == without.scores.tobytes()


def test_the_graph_makes_an_unknown_item_recommendable_and_says_why():
    trained = learned(cycling())
    graph = MemoryGraph(STATE)
    graph.apply(cycling())
    graph.apply(make_events([50, 50], [102, 999], ts=[2_000_000_000_000, 2_000_000_000_001], offset=[0, 1]))
    ranked = Ranker(trained.model, trained.vocabulary, Fusion(evidence=16.0), RankingSettings()).rank(
        one_user(100, 102), graph, 8
    )
    assert 999 in ranked.items[0]
    assert ranked.because[0][ranked.items[0].tolist().index(999)][0] == 102


def test_seen_items_can_be_filtered_and_a_user_without_events_gets_none():
    trained = learned(cycling())
    graph = MemoryGraph(STATE)
    graph.apply(cycling())
    ranking = Ranker(trained.model, trained.vocabulary, trained.fusion, RankingSettings(filter_seen=True))
    assert not {100, 101} & set(ranking.rank(one_user(100, 101), graph, 7).items[0].tolist())
    nobody = Sequences(np.array([9], np.uint64), np.array([0, 0]), one_user(100).steps[:0])
    assert not ranking.rank(nobody, graph, 5).items.any()


def test_a_hidden_item_is_not_recommended_to_who_hid_it():
    trained = learned(cycling())
    graph = MemoryGraph(STATE)
    graph.apply(cycling())
    ranking = Ranker(trained.model, trained.vocabulary, trained.fusion, RankingSettings())
    [best, second] = ranking.rank(one_user(100, 101), graph, 2).items[0].tolist()
    hidden = [np.array([best], np.uint64)]
    found = ranking.rank(one_user(100, 101), graph, 7, hidden).items[0].tolist()
    assert best not in found
    assert found[0] == second


def test_what_has_expired_is_not_recommended():
    class Forgetful(MemoryGraph):
        forgets = True

    trained = learned(cycling())
    graph = Forgetful(STATE)
    graph.apply(cycling()[cycling()["item"] != 102])
    ranking = Ranker(trained.model, trained.vocabulary, trained.fusion, RankingSettings())
    assert 102 not in ranking.rank(one_user(100, 101), graph, 7).items[0]
    graph.apply(cycling())
    ranking.update(cycling())
    assert 102 in ranking.rank(one_user(100, 101), graph, 7).items[0]
    ranking.remove(steps := one_user(*[102] * len(cycling())).steps)
    assert len(steps)
    assert 102 not in ranking.rank(one_user(100, 101), graph, 7).items[0]


def test_packing_loses_nothing_and_the_encoder_sees_no_future():
    histories = Histories(np.array([0, 3, 4]), np.array([1, 2, 3, 4]))
    packed = pack(histories)
    assert packed.items[packed.tokens].tolist() == [1, 2, 3, 4]
    assert packed.items[packed.last].tolist() == [3, 4]
    model = Create(5, SMALL).eval()
    torch.nn.init.normal_(model.sequence.blocks[0].out.weight)  # a new block is the identity and sees nothing
    changed = Histories(histories.indptr, np.array([1, 2, 5, 4]))
    first, second = (model.sequence(model.items(p.items), p) for p in (packed, pack(changed)))
    before_last, last = packed.tokens[1], packed.tokens[2]
    assert torch.equal(first[before_last], second[before_last])
    assert not torch.equal(first[last], second[last])


@pytest.mark.parametrize("because", [False, True])
def test_with_all_weights_set_to_0_items_no_version_knows_change_nothing_either(because):
    trained = learned(cycling())
    graph = MemoryGraph(STATE)
    graph.apply(cycling())
    graph.apply(make_events([50, 50], [102, 999], ts=[2_000_000_000_000, 2_000_000_000_001], offset=[0, 1]))
    settings = RankingSettings(because=because, evidence_weight=0.0, repeat_weight=0.0, popularity_weight=0.0)
    user = one_user(100, 999, 102)
    found = [
        Ranker(trained.model, trained.vocabulary, with_set_weights(trained.fusion, settings), settings).rank(
            user, known, 8
        )
        for known in (graph, MemoryGraph(STATE))
    ]
    assert found[0].items.tobytes() == found[1].items.tobytes()
    assert found[0].scores.tobytes() == found[1].scores.tobytes()
    h = trained.model.encode(Histories(np.array([0, 2]), trained.vocabulary.lookup(np.array([100, 102], np.uint64))))
    best = (h @ trained.model.items.weight[1:].T).topk(7).indices[0].numpy()
    assert found[0].items[0].tolist() == [*trained.vocabulary.hashes[best].tolist(), 0]
