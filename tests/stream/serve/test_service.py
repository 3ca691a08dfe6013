"""The process of `anabranch serve`, without a broker."""

import asyncio
import logging

import pytest

from stream.config import Config, ServeSettings
from stream.serve.service import ServeService

READ = "read-token-of-the-shop"


@pytest.mark.parametrize(
    ("settings", "warns"),
    [
        ({"http": ":0"}, True),
        ({"http": "0.0.0.0:0"}, True),
        ({"http": ":0", "read_token": READ}, False),
        ({"http": "127.0.0.1:0"}, False),
    ],
)
def test_a_process_that_lets_other_machines_read_histories_says_so(caplog, tmp_path, settings, warns):
    async def run() -> None:
        service = ServeService(Config(broker="127.0.0.1:1", data=tmp_path, serve=ServeSettings(drain_s=0, **settings)))
        await service.run(lambda port: service.stop())

    with caplog.at_level(logging.WARNING, "anabranch.serve"):
        asyncio.run(run())
    assert ("any user's history" in caplog.text) == warns
    assert READ not in caplog.text
