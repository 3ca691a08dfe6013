"""What is wrong with topics is logged once, and again where it comes back."""

import asyncio
import logging

import pytest

from stream.config import Config
from stream.kafka.shapes import Deviation
from stream.kafka.topics import Inspection
from stream.worker.topic_watch import TopicWatch

FATAL, MINOR = Deviation("models is compacted by nobody", fatal=True), Deviation("short retention", fatal=False)


@pytest.fixture
def look(monkeypatch, caplog):
    """Let a watch find this; returns what it logs."""
    watch = TopicWatch(Config(broker="b:1"))

    def looked(deviations=(), not_described=(), hosts=("h1",)):
        caplog.clear()
        monkeypatch.setattr(
            "stream.worker.topic_watch.inspect", lambda _: Inspection(list(deviations), list(not_described))
        )
        monkeypatch.setattr("stream.worker.topic_watch.group_members", lambda *_: list(hosts))
        with caplog.at_level(logging.INFO):
            asyncio.run(watch.look())
        return [(record.levelno, record.getMessage()) for record in caplog.records]

    return looked


def test_a_deviation_is_logged_once_and_again_where_it_comes_back(look):
    assert look([FATAL, MINOR]) == [(logging.ERROR, FATAL.text), (logging.WARNING, MINOR.text)]
    assert look([FATAL, MINOR]) == []
    assert look([MINOR]) == []
    assert look([FATAL, MINOR]) == [(logging.ERROR, FATAL.text)]


def test_what_the_broker_does_not_describe_is_named_once(look):
    [(level, text)] = look(not_described=["clicks", "models"])
    assert level == logging.WARNING
    assert text.startswith("the settings of 'clicks', 'models' are not checked")
    assert look(not_described=["clicks", "models"]) == []


def test_a_worker_of_the_same_name_is_reported_unless_it_is_one_that_just_died(look):
    assert look(hosts=["h1", "h2"]) == []
    [(level, text)] = look(hosts=["h1", "h2"])
    assert level == logging.WARNING
    assert text.startswith("2 workers run as instance '0' of the group 'anabranch', on h1, h2: ")
    assert "topics.prefix" in text
    assert look() == []
