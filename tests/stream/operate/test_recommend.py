"""`anabranch recommend` ranks as the worker does: with its version, weights, filters and A/B arm."""

import msgspec
import pytest

from model.learning.versions import publish
from model.settings import RankingSettings
from state.events import hash_id
from state.view import View
from stream.config import Config, WorkerSettings
from stream.errors import AnabranchError
from stream.kafka.messages import Pointer, Recommendation
from stream.kafka.pointers import MODEL_NAME, Pointers, pointer_to
from stream.operate.recommend import answer_now
from stream.worker import served_file
from stream.worker.recommender import Recommender
from stream.worker.served_file import Served
from stream.worker.served_versions import in_candidates_arm, load_version
from tests.stream.worker.test_recommender import STATE, USERS, Stall


@pytest.fixture
def stall(tmp_path):
    made = Stall(tmp_path)
    yield made
    made.store.close()


def of_worker(recommender: Recommender, stall: Stall, user: str) -> Recommendation:
    [answer] = recommender.recommend(0, stall.pending(user))
    return msgspec.json.decode(answer.message, type=Recommendation)


@pytest.mark.parametrize("share", [0.0, 0.5], ids=["candidate only scored", "A/B"])
def test_the_command_recommends_what_the_worker_does(stall, share, monkeypatch):
    monkeypatch.setattr("stream.worker.served_versions.LEARN_EVERY_S", 0.0)
    config = Config(
        data=stall.store.path.parent, state=STATE,
        ranking=RankingSettings(online_clicks=50, ranker=False), worker=WorkerSettings(ab=share, instance="one"),
    )  # fmt: skip
    for seed in (0, 1):
        publish(config.artifacts_url, MODEL_NAME, stall.trained(seed), {0: 1})
    pointers = Pointers(pointer_to(config, "000001", None), pointer_to(config, "000002", None, role="candidate"))
    worker = Recommender(config, {0: stall.store}, None)
    worker.versions.serve(load_version(pointers.champion, config))
    worker.versions.score(load_version(pointers.candidate, config))
    own_weights = worker.versions.champion.stages.fusion
    for _ in range(5):
        worker.learn(stall.store, stall.following())
    assert worker.versions.champion.stages.fusion != own_weights
    hides = [next(u for u in USERS if in_candidates_arm(hash_id(u), 0.5) is arm) for arm in (True, False)]
    for user in hides:
        first = of_worker(worker, stall, user).items[0].item
        worker.update(stall.click([user], [first], "hide"))

    as_typed = msgspec.structs.replace(config, worker=WorkerSettings(ab=share))  # without the worker's --instance
    with View(config.data, "clicks", STATE) as view:
        for user in (*hides, "nobody"):
            ours, workers = answer_now(as_typed, view, pointers, user), of_worker(worker, stall, user)
            for field in ("model", "source", "items"):
                assert getattr(ours, field) == getattr(workers, field), (user, field)
        assert {answer_now(as_typed, view, pointers, u).model for u in hides} == (
            {"000001", "000002"} if share else {"000001"}
        )


def test_the_command_recommends_with_the_version_that_the_worker_serves_in_place_of_the_named_one(stall):
    config = Config(data=stall.store.path.parent, state=STATE)
    publish(config.artifacts_url, MODEL_NAME, stall.trained(0), {0: 1})
    gone = Pointers(Pointer(MODEL_NAME, "000002", config.artifacts_url, "0" * 64, 1))
    with View(config.data, "clicks", STATE) as view:
        with pytest.raises(AnabranchError, match=r"has no manifest\.json of version 000002"):
            answer_now(config, view, gone, USERS[0])
        served_file.write(config.data, Served("000002", "0" * 64, "000001"))
        assert answer_now(config, view, gone, USERS[0]).model == "000001"
