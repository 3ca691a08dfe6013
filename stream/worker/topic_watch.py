"""Looks at the topics while a worker runs, and logs what is wrong with them: others may change or delete them."""

import asyncio
import logging
from collections.abc import Iterable

from stream.config import Config
from stream.errors import BrokerUnavailable
from stream.kafka.topics import group_members, inspect

log = logging.getLogger("anabranch.topics")

LOOK_EVERY_S = 30.0


class TopicWatch:
    """Logs each thing that is wrong once, and again where it comes back."""

    def __init__(self, config: Config) -> None:
        self._config, self._reported = config, frozenset[str]()
        self._shared_before = False

    async def run(self) -> None:
        """Look at once, and then forever."""
        while True:
            try:
                await self.look()
            except BrokerUnavailable:  # logged elsewhere
                pass
            except Exception as error:  # a broker that answers in a strange way ends no worker
                self._report([], [f"the topics are not checked: {type(error).__name__}: {error}"])
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Look once. Raises BrokerUnavailable."""
        found = await asyncio.to_thread(inspect, self._config)
        fatal = [deviation.text for deviation in found.deviations if deviation.fatal]
        others = await asyncio.to_thread(self._same_name)
        self._report(fatal, [*found.warnings(self._config), *others])

    def _report(self, errors: Iterable[str], warnings: Iterable[str]) -> None:
        by_level = ((logging.ERROR, list(errors)), (logging.WARNING, list(warnings)))
        for level, texts in by_level:
            for text in texts:
                if text not in self._reported:
                    log.log(level, "%s", text)
        self._reported = frozenset(text for _, texts in by_level for text in texts)

    def _same_name(self) -> list[str]:
        """The sentence about other workers of this name, if they were there at the look before too.

        A worker that was killed counts until its session has ended.
        """
        config, instance = self._config, self._config.worker.instance
        members = group_members(config, f"{config.group}-{instance}")
        before, self._shared_before = self._shared_before, len(members) > 1
        if not (before and self._shared_before):
            return []
        return [
            f"{len(members)} workers run as instance {instance!r} of the group {config.group!r}, on "
            f"{', '.join(sorted(set(members)))}: only one of them receives new versions and commands. Start each with "
            f"a name of its own (--instance), and a second installation on this Kafka with topics.prefix"
        ]
