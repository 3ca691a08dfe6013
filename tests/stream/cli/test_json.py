"""The documents of `--json`: their keys and nesting are an interface, recorded before reports had types."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from stream.cli import main  # noqa: F401  registers the commands
from stream.cli.app import app
from stream.kafka.topics import TopicState
from stream.operate.forget import ForgetReport, PublishedEvent, Searched
from stream.operate.report import ComparedVersion
from tests.stream.cli.small_shop import make_small_shop

STEP = {"item": "str", "ts": "int", "event": "str", "title": "None"}
FUSION = {"model": "float", "evidence": "float", "repeat": "float", "popularity": "float", "before": "float"}
QUALITY = {
    "events": "int", "hit@10": "float", "ndcg@10": "float", "rolling_hit@10": "float", "rolling_ndcg@10": "float",
}  # fmt: skip
RECOMMENDATION = {
    "user": "str", "items": [{"item": "str", "score": "float", "because": ["str"], "title": "str", "why": "str"}],
    "model": "str", "model_age_s": "float", "source": "str", "event_ts": "int", "emitted_ts": "int",
    "partition": "int", "offset": "int",
}  # fmt: skip
SECOND_VERSION = {
    "version": "str", "serving": "bool", "parent": "str", "created_ts": "int", "trained_offsets": {"0": "int"},
    "metrics": {
        "hit@10": "float", "ndcg@10": "float", "model_hit@10": "float", "model_ndcg@10": "float",
        "champion_hit@10": "float", "champion_ndcg@10": "float", "ranker": "float",
        "ranker_examples": "float", "epochs": "float", "train_s": "float",
        "last_s": "float", "users": "float",
    },
    "fusion": FUSION, "promoted": "bool", "reason": "str", "outcome": "str",
    "change": "None",
}  # fmt: skip

DOCUMENTS: dict[str, Any] = {
    "status": {
        "partitions": [
            {
                "partition": "int", "next_offset": "int", "log_end": "None", "lag": "None", "state": "str",
                "owner": "None", "lag_ms": "None",
            },
        ],
        "events": {
            "applied": "int", "dead": "int", "duplicate": "int", "too_old": "int", "expired": "int", "erased": "int",
            "key_mismatch": "int", "lost": "int", "keyless": "int", "foreign_partition": "int", "truncated": "int",
        },
        "users": "int", "items": "int", "edges": "int",
        "model": {
            "version": "str", "age_s": "float", "pinned": "bool", "artifacts": "None",
            "online_weights": {"0": {"clicks": "int", "chosen": FUSION, "now": FUSION}},
            "named": "str", "problem": "None",
        },
        "trainer": {
            "doing": "str", "since_ts": "int", "what": "str", "share": "float", "events": "int", "last": "str",
            "last_ts": "int", "failures": "int", "failure": "str", "drifts": "int",
        },
        "comparison": {
            "mode": "str", "share": "float",
            "champion": {"version": "str", **QUALITY}, "candidate": {"version": "str", **QUALITY},
        },
        "prequential": {"000001": QUALITY, "fallback": QUALITY, "model": QUALITY, "popularity": QUALITY},
        "warnings": [],
        "worker": {
            "doing": "str", "instance": "str", "pid": "int", "seen_ts": "int", "started_ts": "int",
            "paused_ts": "None", "too_many_requests": "int", "sent_smaller": "int", "unsendable": "int",
            "lost_dead_letters": "int", "phases": {}, "lagging": "bool",
        },
        "id_keys": ["str"],
        "members": "None",
    },
    "user ann": {"user": "str", "sequence": [STEP], "recommended": RECOMMENDATION, "partitions": ["int"]},
    "user bob": {"user": "str", "sequence": [STEP], "recommended": "None", "partitions": ["int"]},
    "user ann --at 2023-11-14T22:13:30Z": {"user": "str", "at": "int", "sequence": [STEP]},
    "item milk": {
        "item": "str", "title": "None", "degree": "int", "popularity": "float",
        "next": [{"item": "str", "title": "str", "weight": "float"}], "known_to_model": "bool",
        "withdrawn": "bool",
    },
    "item milk --at 2023-11-14T22:15:30Z": {
        "item": "str", "at": "int", "degree": "int", "popularity": "float",
        "next": [{"item": "str", "weight": "float"}], "last_users": [{"user": "str", "ts": "int", "event": "str"}],
    },
    "graph": {
        "users": "int", "items": "int", "edges": "int", "oldest_ts": "int", "newest_ts": "int",
        "item_degree": {"p50": "int", "p90": "int", "p99": "int", "p100": "int"},
    },
    "graph --from 0": {"from": "int", "to": "int", "edges": "int", "users": "int", "items": "int"},
    "recommend ann": {
        **RECOMMENDATION, "items": [{"item": "str", "score": "float", "because": ["str"], "why": "str"}],
    },
    "models": {
        "serving": "str", "pinned": "bool", "candidate": "str", "versions": [SECOND_VERSION],
        "named": "str", "problem": "None",
    },
}  # fmt: skip


def shape(document: Any, first: bool = True) -> Any:
    """The keys in their order, with the type of each value; of a list one element."""
    if isinstance(document, dict):
        return {key: shape(value, first) for key, value in document.items()}
    if isinstance(document, list):
        return [shape(document[0 if first else -1], first)] if document else []
    return "None" if document is None else type(document).__name__


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("shop") / "data"
    make_small_shop(data)
    return data


@pytest.mark.parametrize("command", DOCUMENTS)
def test_the_keys_of_a_document_never_change(shop, command):
    result = CliRunner().invoke(app, [*command.split(), "--data", str(shop), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = shape(json.loads(result.stdout), first=command != "models")
    assert json.dumps(found) == json.dumps(DOCUMENTS[command])


def test_a_version_without_a_tested_event_has_no_scores_in_the_comparison():
    assert msgspec.json.encode(ComparedVersion("000002")) == b'{"version":"000002"}'


def test_the_keys_of_init_and_forget_never_change():
    assert msgspec.json.encode({"topics": [TopicState("clicks", 2, True)]}) == (
        b'{"topics":[{"name":"clicks","partitions":2,"created":true}]}'
    )
    report = ForgetReport("ann", [PublishedEvent(1, 7)], [0], Searched(3, 2, 1), ["clicks-0/x"])
    assert msgspec.json.encode(report) == (
        b'{"user":"ann","published":[{"partition":1,"offset":7}],"not_here":[0],'
        b'"searched":{"files":3,"bytes":2,"records":1},"found":["clicks-0/x"]}'
    )
