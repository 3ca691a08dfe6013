"""Whether the worker of this data directory serves a user, and whether its stores hold one."""

from state.view import View
from stream.config import Config
from stream.kafka.keys import partition_of
from stream.operate.lookup import partitions_with
from stream.operate.worker_report import worker_report

USABLE = ("catching up", "answering")


def serves_here(config: Config, user: str | None) -> bool:
    """Whether a running worker of this data directory owns the user's partition; without a user, all partitions."""
    worker = worker_report(config.data)
    if worker is None or worker.doing == "down":
        return False
    owned = {number for number, phase in worker.phases.items() if phase in USABLE}
    with View(config.data, config.topics.clicks, config.state) as view:
        counts = {p.identity.partitions for p in view.partitions.values() if p.identity is not None}
        if len(counts) != 1 or not owned <= view.partitions.keys():
            return False
        [count] = counts
        if user is None:
            return owned == set(range(count))
        return not owned.isdisjoint(_held(view, user)) or partition_of(user, count) in owned


def holds_here(config: Config, user: str | None) -> bool:
    """Whether a store of this data directory has events of the user, or is that of the user's partition."""
    with View(config.data, config.topics.clicks, config.state) as view:
        if user is None:
            return bool(view.partitions)
        counts = {p.identity.partitions for p in view.partitions.values() if p.identity is not None}
        return bool(_held(view, user)) or any(partition_of(user, n) in view.partitions for n in counts)


def _held(view: View, user: str) -> list[int]:
    return partitions_with(view, view.ids.of(user))
