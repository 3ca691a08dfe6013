"""What `/metrics` and `/readyz` say of a worker while its partitions come, fault and go."""

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from model.errors import ArtifactError
from state.errors import StoreBlocked
from stream.kafka.pointers import Pointers
from stream.live_metrics import ALL_VERSIONS, POPULARITY, ScoreKey, encode_scores
from stream.live_metrics import Score as PrequentialScore
from stream.metrics.disk import Disk
from stream.metrics.samples import make_registry
from stream.stores.assignment import Phase
from stream.stores.checkpoints import Checkpoints
from stream.worker import version_follower
from stream.worker.lag import Lag
from stream.worker.present import Present
from stream.worker.version_follower import VersionFollower
from tests.stream.fakes import CLICKS, REQUESTS, scenario_with, until
from tests.stream.kafka.test_decode import BROKER_TIME, Record
from tests.stream.worker.test_pipeline import Shop
from tests.stream.worker.test_version_follower import pointer


class Watched(Shop):
    """A worker that owns partition 0, and whose page can be read."""

    def __init__(self, config, monkeypatch) -> None:
        super().__init__(config, monkeypatch)
        self.consumer.partitions_for_topic = lambda topic: {0, 1}
        self.versions = VersionFollower(config, self.recommender.versions, self.assignment)
        self.lag = Lag(config, self.consumer, self.assignment, self.pipeline.observed)
        self.checkpoints = Checkpoints(config, self.assignment, self.lease)
        self.disk = Disk(config.data)
        self.present = Present(
            config, self.consumer, self.assignment, self.lease, self.pipeline, self.recommender.versions,
            self.versions, self.checkpoints, self.lag, self.disk,
        )  # fmt: skip
        self.registry = make_registry("worker", self.present.fill, self.pipeline.observed.instruments)

    def page(self) -> dict[str, float]:
        """The page's series of ours, by their text without the prefix."""
        found = {}
        for family in text_string_to_metric_families(generate_latest(self.registry).decode()):
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                found[f"{sample.name.removeprefix('anabranch_')}{{{labels}}}" if labels else sample.name[10:]] = (
                    sample.value
                )
        return found

    def of_partition(self, number: int) -> set[str]:
        """The series that a partition has."""
        return {name for name in self.page() if f"partition={number}" in name}


@scenario_with
async def with_watched(config, monkeypatch):
    """A `Watched` worker whose partition is assigned."""
    shop = Watched(config, monkeypatch)
    await shop.assign()
    return shop


@with_watched
async def test_the_path_of_an_event_is_on_the_page(shop):
    answering = shop.start(shop.pipeline.answer())
    await shop.poll({CLICKS: shop.records({"user": "ann"}, {"user": "bob"}, {"user": "ann", "item": "tea"}, b"no")})
    await until(lambda: answering.done() or shop.store.answered() == 4)
    page = shop.page()
    assert page["events_total{outcome=applied,partition=0}"] == 3
    assert page["events_total{outcome=dead_letter,partition=0}"] == page["dead_letters_total{reason=not_json}"] == 1
    assert page["recommendations_total{source=popularity}"] == page["recommendation_latency_seconds_count"] == 2
    assert page["graph_users{partition=0}"] == 2
    assert page["pending_users{partition=0}"] == page["partition_lag_events{partition=0}"] == 0
    for step in ("decode", "apply", "write", "rank", "send", "record", "commit"):
        assert page[f"step_duration_seconds_count{{step={step}}}"] >= 1, step
    assert page["misplaced_events_total{partition=0,problem=keyless}"] == 3


@with_watched
async def test_the_latency_is_from_the_time_of_the_oldest_click_that_is_answered(shop):
    answering = shop.start(shop.pipeline.answer())
    now_ms, records = 1_800_000_000_000, shop.records({"user": "ann"}, {"user": "ann"})
    shop.monkeypatch.setattr("stream.metrics.instruments.time.time", lambda: now_ms / 1000)
    records[0].timestamp, records[1].timestamp = now_ms - 40_000, now_ms - 1000
    await shop.poll({CLICKS: records})
    await until(lambda: answering.done() or shop.store.answered() == 2)
    page = shop.page()
    assert page["recommendation_latency_seconds_count"] == 1
    assert page["recommendation_latency_seconds_sum"] == pytest.approx(40)


@with_watched
async def test_requests_are_counted_by_outcome_and_timed(shop):
    shop.monkeypatch.setattr("stream.metrics.instruments.time.time", lambda: BROKER_TIME / 1000 + 2)
    await shop.poll({REQUESTS: [Record(b'{"user": "ann"}', 0), Record(b"no request", 1)]})
    page = shop.page()
    assert page["requests_total{outcome=ok}"] == page["requests_total{outcome=invalid}"] == 1
    assert page["dead_letters_total{reason=request}"] == 1
    assert (page["request_duration_seconds_count"], page["request_duration_seconds_sum"]) == (1, pytest.approx(2))


@with_watched
async def test_a_phase_is_1_and_the_other_phases_are_0(shop):
    assert shop.page()["partition_phase{partition=0,phase=catching_up}"] == 1
    await shop.poll({})
    page = shop.page()
    phases = {name: value for name, value in page.items() if name.startswith("partition_phase")}
    assert (len(phases), sum(phases.values())) == (4, 1)
    assert phases["partition_phase{partition=0,phase=answering}"] == 1
    assert (page["ready"], page["paused"], page["group_confirmed"], page["clicks_partitions"]) == (1, 0, 1, 2)


@with_watched
async def test_the_series_of_a_partition_go_when_it_is_revoked(shop):
    await shop.poll({CLICKS: shop.records({"user": "ann"})})
    assert len(shop.of_partition(0)) > 15
    await shop.revoke()
    assert shop.of_partition(0) == set()
    await shop.assign()
    assert shop.page()["events_total{outcome=applied,partition=0}"] == 1


@with_watched
async def test_a_store_that_is_opened_again_has_its_phase_and_nothing_else(shop):
    """A full disk faults the store. The worker is not ready, and a restart would not help."""
    await shop.poll({})
    assert shop.present.not_ready() == []
    async with shop.assignment.hold(0):
        raise StoreBlocked("no space left on device", shop.store.path)
    assert shop.present.not_ready() == ["partition 0 is faulted, not answering"]
    shop.monkeypatch.setattr(
        "stream.stores.partition_stores.PartitionStores.open",
        lambda *_: (_ for _ in ()).throw(StoreBlocked("no space left on device", shop.config.data)),
    )
    await shop.assignment.reopen_faulted()
    assert shop.present.not_ready() == ["partition 0 is opening, not answering"]
    assert {name.partition("{")[0] for name in shop.of_partition(0)} == {"partition_phase"}
    assert shop.page()["ready"] == 0


@with_watched
async def test_a_scrape_reads_memory_only(shop):
    """A disk that hangs would hold the event loop, and with it the whole worker."""
    await shop.poll({CLICKS: shop.records({"user": "ann"})})

    def hangs(*_: object) -> None:
        raise AssertionError("the disk was read")

    for call in ("get", "get_many", "write", "put"):
        shop.monkeypatch.setattr(f"state.rocksdb.Database.{call}", hangs)
    page = shop.page()
    assert page["graph_users{partition=0}"] == page["ready"] == 1


@with_watched
async def test_a_scrape_while_a_store_closes_waits_for_nothing(shop):
    """A revocation waits for an answer that is being sent. The page is read meanwhile, and when the store is closed."""
    replying, revoking = await shop.revoke_during_a_reply()
    assert "graph_users{partition=0}" in shop.page()
    shop.producer.acknowledges.set()
    await revoking
    assert "graph_users{partition=0}" not in shop.page()
    await replying


@with_watched
async def test_a_pause_a_rebalance_and_a_group_that_is_silent_make_a_worker_unready(shop):
    await shop.poll({})
    shop.assignment.pause(True)
    [paused] = shop.present.not_ready()
    assert "anabranch resume" in paused
    assert shop.page()["paused"] == 1
    shop.assignment.pause(False)
    shop.lease.held = False
    [silent] = shop.present.not_ready()
    assert "does not confirm" in silent
    shop.lease.held = True
    await shop.revoke()
    [rebalancing] = shop.present.not_ready()
    assert "has not assigned" in rebalancing
    await shop.assignment.on_partitions_assigned([])
    assert shop.present.not_ready() == []
    assert shop.page()["rebalances_total"] == 2


@with_watched
async def test_a_version_that_is_named_and_missing_makes_it_unready(shop):
    def load(pointer, config, id_hash):
        raise ArtifactError("the artifact store does not answer")

    shop.monkeypatch.setattr(version_follower, "load_version", load)
    shop.monkeypatch.setattr(version_follower, "versions_before", lambda named, config: [])
    await shop.poll({})
    await shop.versions.follow(Pointers(pointer("000007", 1)))
    assert shop.present.not_ready() == ["version 000007 is named and not loaded: the artifact store does not answer"]
    assert shop.page()["model_as_named"] == 0


@with_watched
async def test_the_scores_of_the_model_and_its_rivals_come_from_the_store(shop):
    scores = {
        ALL_VERSIONS: PrequentialScore(10, 4.0, 2.5), POPULARITY: PrequentialScore(10, 3.0, 1.5),
        ScoreKey("000001"): PrequentialScore(10, 4.0, 2.5),
    }  # fmt: skip
    shop.store.take_over(0, encode_scores(scores), 0)
    await shop.poll({CLICKS: shop.records({"user": "ann"})})
    page = shop.page()
    assert page["prequential_tests_total{by=model,partition=0}"] == 10
    assert page["prequential_hits_total{by=popularity,partition=0}"] == 3
    assert page["prequential_ndcg_total{by=model,partition=0}"] == 2.5
    assert "prequential_tests_total{by=000001,partition=0}" not in page


@with_watched
async def test_the_lag_is_in_offsets_and_since_the_store_had_all_of_its_log(shop):
    clock = [BROKER_TIME / 1000]
    shop.monkeypatch.setattr("stream.worker.lag.time.time", lambda: clock[0])
    shop.consumer.stable_end = 1
    await shop.poll({CLICKS: shop.records({"user": "ann"})})
    shop.lag.note()
    assert (shop.lag.events(0), shop.lag.seconds(0)) == (0, 0)
    clock[0] += 100
    shop.lag.note()  # an idle log: all is applied
    shop.consumer.stable_end, clock[0] = 5, clock[0] + 3
    page = shop.page()
    assert page["partition_lag_events{partition=0}"] == 4
    assert page["partition_lag_seconds{partition=0}"] == pytest.approx(3)


@with_watched
async def test_during_a_pause_the_ends_of_the_logs_are_asked_for(shop):
    """Nothing is fetched then, and every fetch brings the end."""
    await shop.poll({CLICKS: shop.records({"user": "ann"})})
    shop.assignment.pause(True)

    async def end_offsets(partitions):
        return dict.fromkeys(partitions, 8)

    shop.consumer.end_offsets = end_offsets
    shop.start(shop.lag.follow())
    await until(lambda: shop.lag.events(0) == 7)


@with_watched
async def test_a_partition_that_catches_up_shows_what_is_left(shop):
    await shop.revoke()
    shop.log = shop.log._replace(end=100)
    await shop.assign()
    assert shop.page()["restore_remaining_events{partition=0}"] == 100
    shop.consumer.positions[CLICKS] = 100
    await shop.poll({})
    assert shop.assignment.phase(0) is Phase.ANSWERING
    assert shop.page()["restore_remaining_events{partition=0}"] == 0


@with_watched
async def test_a_disk_that_does_not_answer_takes_its_own_series_only(shop):
    assert not any(name.startswith(("disk_", "data_")) for name in shop.page())
    shop.disk.measure()
    page = shop.page()
    assert page["disk_free_bytes"] > 0
    assert page["data_bytes{kind=state}"] > 0


@with_watched
async def test_forgotten_users_are_pending_until_their_bytes_are_gone(shop):
    shop.apply({"user": "ann"})
    await shop.poll({CLICKS: shop.records({"user": "ann", "event": "forget"})})
    assert shop.page()["forget_pending{partition=0}"] == 1
