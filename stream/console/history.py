"""What the plots show: samples of the newest hours, and of the newest week at a longer interval.

They are in memory, bounded, and in one small file of the data directory, so that a restart does not lose them.
"""

import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from stream.console.live import MODEL, RIVALS
from stream.files import json_file

log = logging.getLogger("anabranch.console")

FILE_NAME = "console.json"
FINE_S, FINE_SAMPLES = 10, 720
"""Two hours."""
COARSE_S, COARSE_SAMPLES = 600, 1008
"""A week."""
MAX_RESULTS = 100
KEYS = (MODEL, *RIVALS)


class Sample(msgspec.Struct, array_like=True, frozen=True):
    """The installation at one time."""

    ts: int
    hit: tuple[float | None, ...] = ()
    """Rolling Hit@10, in the order of KEYS."""
    ndcg: tuple[float | None, ...] = ()
    latency_ms: float | None = None
    """Median of the sampled times from a click to its recommendation."""
    slowest_ms: float | None = None
    lag: int | None = None
    """Clicks that wait in the log."""
    events_per_s: float | None = None
    version: str = ""


class Result(msgspec.Struct, frozen=True):
    """The end of a cycle, as the trainer reported it."""

    ts: int
    text: str
    failed: bool = False


class Kept(msgspec.Struct):
    """The file."""

    fine: list[Sample] = []
    coarse: list[Sample] = []
    results: list[Result] = []


class History:
    """Samples, oldest first."""

    def __init__(self, data: Path) -> None:
        self._file = data / FILE_NAME
        self.fine: deque[Sample] = deque(maxlen=FINE_SAMPLES)
        self.coarse: deque[Sample] = deque(maxlen=COARSE_SAMPLES)
        self.results: deque[Result] = deque(maxlen=MAX_RESULTS)
        self._since: list[Sample] = []
        self._refused = False

    def add(self, sample: Sample) -> None:
        """Note a sample; the clock may have been set back since the last."""
        if self.fine and sample.ts <= self.fine[-1].ts:
            return
        self.fine.append(sample)
        self._since.append(sample)
        if sample.ts // (COARSE_S * 1000) != self._since[0].ts // (COARSE_S * 1000):
            self.coarse.append(mean(self._since))
            self._since = []

    def add_result(self, result: Result) -> None:
        """Note the end of a cycle, once."""
        if result not in self.results:
            self.results.append(result)

    def samples(self, *, week: bool) -> list[Sample]:
        """Those of the newest two hours, or of the newest week."""
        if not week:
            return list(self.fine)
        return [*self.coarse, mean(self._since)] if self._since else list(self.coarse)

    def read(self) -> None:
        """Go on with what the file has; without one, or with a damaged one, begin."""
        kept = json_file.read(self._file, Kept)
        if kept is not None:
            for into, found in ((self.fine, kept.fine), (self.coarse, kept.coarse)):
                into.extend(s for s in found if len(s.hit) == len(s.ndcg) == len(KEYS))
            self.results.extend(kept.results)

    def write(self) -> None:
        """Replace the file. Where it cannot be written, the history is in memory only; that is logged once."""
        try:
            json_file.write(self._file, Kept(list(self.fine), self.samples(week=True), list(self.results)))
            self._refused = False
        except OSError as error:
            if not self._refused:
                log.warning("%s cannot be written: a restart loses the plots of the console (%s)", self._file, error)
            self._refused = True


def mean(samples: Sequence[Sample]) -> Sample:
    """Several samples as one, at the time of the last: means, and the slowest of all."""
    last = samples[-1]
    slowest = [s.slowest_ms for s in samples if s.slowest_ms is not None]
    return Sample(
        ts=last.ts,
        hit=tuple(_mean([s.hit[n] for s in samples]) for n in range(len(KEYS))),
        ndcg=tuple(_mean([s.ndcg[n] for s in samples]) for n in range(len(KEYS))),
        latency_ms=_mean([s.latency_ms for s in samples]),
        slowest_ms=max(slowest) if slowest else None,
        lag=None if (lag := _mean([s.lag for s in samples])) is None else round(lag),
        events_per_s=_mean([s.events_per_s for s in samples]),
        version=last.version,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def columns(samples: Sequence[Sample], interval_s: int) -> dict[str, Any]:
    """The samples as a plot takes them: columns over seconds, with a gap where nothing was sampled for long."""
    rows: list[Sample] = []
    for sample in samples:
        if rows and sample.ts - rows[-1].ts > 3000 * interval_s:
            rows.append(Sample(rows[-1].ts + 1000 * interval_s, (None,) * len(KEYS), (None,) * len(KEYS)))
        rows.append(sample)
    swaps: list[tuple[float, str]] = []
    served = ""
    for sample in samples:
        if sample.version and sample.version != served:
            served = sample.version
            swaps.append((sample.ts / 1000, served))
    return {
        "t": [s.ts / 1000 for s in rows],
        "hit": [[_percent(s.hit[n]) for s in rows] for n in range(len(KEYS))],
        "ndcg": [[_percent(s.ndcg[n]) for s in rows] for n in range(len(KEYS))],
        "latency": [[_round(s.latency_ms) for s in rows], [_round(s.slowest_ms) for s in rows]],
        "lag": [[s.lag for s in rows], [_round(s.events_per_s) for s in rows]],
        "versions": swaps,
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 3)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
