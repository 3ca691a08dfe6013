"""Samples the installation for the plots, and notes the results of cycles."""

import asyncio
import logging
import time
from collections.abc import Callable

from stream.console.broker_watch import BrokerWatch
from stream.console.history import FINE_S, KEYS, History, Result, Sample
from stream.console.live import Live
from stream.times import now_ms

log = logging.getLogger("anabranch.console")

WRITE_EVERY_S = 60.0


class Sampler:
    """Adds a sample every FINE_S."""

    def __init__(
        self, look: Callable[[], Live], away: Callable[[], bool], broker: BrokerWatch, history: History
    ) -> None:
        self._look, self._away, self._broker, self._history = look, away, broker, history
        self._applied: tuple[float, int] | None = None

    async def run(self) -> None:
        """Until it is cancelled."""
        written = time.monotonic()
        while True:
            try:
                self.sample()
                if time.monotonic() - written > WRITE_EVERY_S:
                    written = time.monotonic()
                    await asyncio.to_thread(self._history.write)
            except Exception:
                log.exception("the console's plots miss a sample")
            await asyncio.sleep(FINE_S)

    def sample(self) -> None:
        """Add a sample, if any worker lives and the broker answers."""
        found = self._look()
        for trainer in found.trainers:
            self._note_result(trainer.member.trainer)
        if self._away() or not any(worker.lives for worker in found.workers):
            self._applied = None
            return
        scores = [found.scores.get(key) for key in KEYS]
        latencies = sorted(self._broker.take_latencies())
        self._history.add(
            Sample(
                ts=now_ms(),
                hit=tuple(s.rolling_hit if s else None for s in scores),
                ndcg=tuple(s.rolling_ndcg if s else None for s in scores),
                latency_ms=latencies[len(latencies) // 2] if latencies else None,
                slowest_ms=latencies[-1] if latencies else None,
                lag=found.lag,
                events_per_s=self._rate(found.counts.get("applied", 0)),
                version=found.versions[-1] if found.versions else "",
            )
        )

    def _rate(self, applied: int) -> float | None:
        """Events applied a second since the last sample; None where a partition has moved in between."""
        before, now = self._applied, time.monotonic()
        self._applied = now, applied
        if before is None or applied < before[1] or now <= before[0]:
            return None
        return (applied - before[1]) / (now - before[0])

    def _note_result(self, trainer: object) -> None:
        last, last_ts = getattr(trainer, "last", ""), getattr(trainer, "last_ts", 0)
        failure, failures = getattr(trainer, "failure", ""), getattr(trainer, "failures", 0)
        if last and last_ts:
            self._history.add_result(Result(last_ts, last))
        newest = next((r for r in reversed(self._history.results) if r.failed), None)
        text = f"Try {failures}: {failure}"
        if failure and failures and (newest is None or newest.text != text):
            self._history.add_result(Result(now_ms(), text, failed=True))
