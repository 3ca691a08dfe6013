"""Members of an installation that no process is behind."""

from typing import Any

from stream.members.member import Member, PartitionState

T = 1_700_000_000_000


def worker(instance: str = "0", life: int = 1, **fields: Any) -> Member:
    """A worker; `life` tells its processes apart. `answering=[0, 1]` are partitions that it answers for."""
    answering = fields.pop("answering", [])
    partitions = {n: PartitionState(phase="answering", next_offset=10, log_end=10) for n in answering}
    made: dict[str, Any] = {
        "kind": "worker", "instance": instance, "host": "here", "pid": life, "software": "1", "started_ts": T + life,
        "ts": T, "partitions": partitions,
    }  # fmt: skip
    return Member(**(made | fields))
