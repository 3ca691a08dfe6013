"""`status`, `models`: what runs and how well, whether workers run or not."""

import time
from typing import TYPE_CHECKING

from stream.cli.app import command
from stream.cli.output import UNKNOWN, note, number, percent, show, show_json
from stream.cli.state_access import explain_unreadable, members_of, pointers_of, view_of
from stream.errors import AnabranchError

if TYPE_CHECKING:
    from stream.config import Config
    from stream.members.installation import MemberReport
    from stream.members.member import TrainerState
    from stream.operate.model_report import LearnedWeights, Models, ModelStatus, VersionReport
    from stream.operate.report import Comparison, Quality, Status
    from stream.operate.worker_report import WorkerReport

RECENT_ERROR_S = 600.0
"""A warning or error of a member is shown for this long."""
SIGNALS = ("model", "evidence", "repeat", "popularity")


@command(broker_required=False)
def status(*, settings: "Config", as_json: bool) -> None:
    """Show who serves, progress, counts, the serving version and its quality, of the whole installation.

    It needs nothing but the broker. Without one it shows what this data directory knows.
    """
    from stream.errors import BrokerUnavailable
    from stream.kafka.pointers import read_last_pointers
    from stream.kafka.topics import inspect, log_ends
    from stream.operate import report
    from stream.operate.worker_report import worker_report
    from stream.stores.id_key import UNKEYED

    ends, of_topics = None, []
    if settings.broker:
        try:
            ends = log_ends(settings, settings.topics.clicks)
            of_topics = [deviation.text for deviation in inspect(settings).deviations]
        except BrokerUnavailable as error:
            note(str(error))
    seen = members_of(settings) if ends else None
    pointers = pointers_of(settings) if ends is not None else read_last_pointers(settings.data)
    worker = worker_report(settings.data)  # one that restores its first state has none to show yet
    with view_of(settings, whole=False, may_be_empty=seen is not None or bool(worker and worker.phases)) as view:
        found = report.status(settings, view, ends, pointers, of_topics, seen)
        for unreadable in view.unreadable.values():
            note(explain_unreadable(unreadable))
    if "" in found.id_keys:
        note(UNKEYED)
    if as_json:
        return show_json(found)
    show_status(found)
    for warning in found.warnings:
        note(warning)


def show_status(found: "Status") -> None:
    """Print a status: partitions, counts, the model, the trainer, and the quality."""
    from rich.table import Table

    owners = ["owner"] if found.members is not None else []
    table = Table("partition", "next offset", "log end", "lag", "state", *owners, box=None)
    for p in found.partitions:
        owner = [p.owner or "nobody"] if owners else []
        table.add_row(*map(number, (p.partition, p.next_offset, p.log_end, p.lag)), p.state, *owner)
    show(table)
    if found.members is not None:
        show_members(found.members)
    if found.members is None or found.worker is not None:
        for line in worker_lines(found.worker):
            show(f"worker   {line}")
    events, model = found.events, found.model
    truncated = f", {events.truncated:,} no longer in the log" if events.truncated else ""
    mismatched = f", {events.key_mismatch:,} with a key that is not their user" if events.key_mismatch else ""
    show(
        f"events   {events.applied:,} applied, {events.dead:,} dead letters, {events.duplicate:,} duplicates, "
        f"{events.too_old:,} too old, {events.lost:,} lost{truncated}{mismatched}"
    )
    show(
        f"graph    {found.users:,} users, {found.items:,} items, {found.edges:,} edges; "
        f"{events.expired:,} expired, {events.erased:,} erased"
    )
    age = f", {model.age_s:.0f} s old" if model.age_s is not None else ""
    pinned = ", pinned: the trainer does not replace it" if model.pinned and not model.problem else ""
    show(f"model    {model.version or 'none yet'}{age}{pinned}{not_served(model)}")
    for instance, weights in model.online_weights.items():
        show(f"weights  {changes_of(weights)} (worker {instance}, from {weights.clicks:,} clicks)")
    if model.artifacts:
        note(model.artifacts)
    for line in trainer_lines(found.trainer):
        show(f"trainer  {line}")
    show_qualities(found.prequential)
    if found.comparison:
        show_comparison(found.comparison)


def show_members(members: "list[MemberReport]") -> None:
    """Print a line for each process, and what it logged last where that was a warning or an error."""
    from rich.table import Table

    table = Table("member", "host", "state", "partitions", "version", "software", "address", box=None)
    for m in members:
        numbers = ", ".join(map(str, m.partitions)) or UNKNOWN
        state = m.doing if m.doing not in ("dead", "stopped") else f"{m.doing} {m.seen_s:,.0f} s ago"
        table.add_row(
            f"{m.kind}/{m.instance}", m.host, state, numbers, m.version or UNKNOWN, m.software, m.address or UNKNOWN
        )
    show(table)
    now = time.time()
    for m in members:
        if m.version_problem:
            show(f"  {m.kind}/{m.instance} does not serve the version that is named: {m.version_problem}")
        if m.last_error and now - m.last_error_ts / 1000 < RECENT_ERROR_S:
            show(f"  {m.kind}/{m.instance} logged {now - m.last_error_ts / 1000:.0f} s ago: {m.last_error}")


def not_served(found: "ModelStatus | Models") -> str:
    """The version that the pointer names and that does not serve, with the reason."""
    return f"; version {found.named} is named and does not serve: {found.problem}" if found.problem else ""


def changes_of(weights: "LearnedWeights") -> str:
    """Each signal's weight in the version, and now."""
    pairs = ((signal, getattr(weights.chosen, signal), getattr(weights.now, signal)) for signal in SIGNALS)
    return ", ".join(f"{signal} {chosen:.2f} → {now:.2f}" for signal, chosen, now in pairs)


def worker_lines(worker: "WorkerReport | None") -> list[str]:
    """What the worker of this data directory does, and the messages that it could not send or answer."""
    if worker is None:
        return ["none has run here"]
    now = time.time()
    name, seen = f"{worker.instance} (process {worker.pid})", f"{now - worker.seen_ts / 1000:.0f} s ago"
    lines = [
        {
            "running": f"{name}, running for {now - worker.started_ts / 1000:.0f} s",
            "paused": f"{name}, paused for {now - (worker.paused_ts or 0) / 1000:.0f} s: `anabranch resume` continues",
            "waiting for the group": f"{name}, waiting: the group does not confirm it, nothing is applied or sent",
            "not responding": f"{name}, not responding: its last status is of {seen}",
            "down": f"down, last seen {seen}: `anabranch up` or `anabranch worker` starts one",
        }[worker.doing]
    ]
    if worker.too_many_requests:
        lines.append(f"{worker.too_many_requests:,} requests were too many to answer (worker.requests_per_poll)")
    if worker.sent_smaller or worker.unsendable or worker.lost_dead_letters:
        lines.append(
            f"messages that their topic refused: {worker.sent_smaller:,} sent smaller, {worker.unsendable:,} to the "
            f"dead letters, {worker.lost_dead_letters:,} dead letters dropped"
        )
    return lines


def trainer_lines(trainer: "TrainerState | None") -> list[str]:
    """What the trainer does, and the outcome of its last cycle."""
    if trainer is None:
        return ["none has run here"]
    now = time.time()
    lines = [
        {
            "waiting": f"waiting, {trainer.events:,} new events since the last cycle",
            "learning": f"learning for {now - trainer.since_ts / 1000:.0f} s, {trainer.share:.0%}: {trainer.what}",
            "not running": "not running: the champion goes on serving, nothing is learned",
        }[trainer.doing]
    ]
    if trainer.last:
        lines.append(f"{now - trainer.last_ts / 1000:.0f} s ago: {trainer.last}")
    if trainer.failure:
        lines.append(f"{trainer.failures} failed since: {trainer.failure}")
    if trainer.drifts:
        lines.append(f"drift was found {trainer.drifts} times since it started")
    return lines


def show_qualities(qualities: "dict[str, Quality]") -> None:
    """Print a line for each version and baseline."""
    from rich.table import Table

    table = Table("prequential", "events", "Hit@10", "NDCG@10", "rolling Hit@10", "rolling NDCG@10", box=None)
    for name, q in qualities.items():
        table.add_row(name, number(q.events), *map(percent, (q.hit, q.ndcg, q.rolling_hit, q.rolling_ndcg)))
    show(table)


def show_comparison(found: "Comparison") -> None:
    """Print champion and candidate side by side."""
    from rich.table import Table

    tested_on = f"A/B, {found.share:.0%} of users" if found.mode == "ab" else "the same events, candidate not served"
    table = Table(tested_on, "version", "events", "Hit@10", "NDCG@10", box=None)
    for role, compared in (("champion", found.champion), ("candidate", found.candidate)):
        table.add_row(
            role, compared.version, number(compared.events or 0), percent(compared.hit), percent(compared.ndcg)
        )
    show(table)


@command(broker_required=False)
def models(*, settings: "Config", as_json: bool) -> None:
    """List the published versions, and show which one serves."""
    from rich.table import Table

    from stream.operate import model_report

    found = model_report.models(settings, pointers_of(settings))
    if as_json:
        return show_json(found)
    if not found.versions:
        from state.artifact_store import shown

        named = f"; version {found.named} is named in Kafka" if found.named else ""
        where = (
            ""
            if settings.artifacts
            else (". Only the trainer's machine has them, unless `artifacts` names a store that all machines reach")
        )
        raise AnabranchError(
            f"no version in {shown(settings.artifacts_url)} yet: the trainer publishes the first one{named}{where}"
        )
    if found.problem:
        note(not_served(found).removeprefix("; "))
    table = Table("version", "", "age", "parent", "held-out NDCG@10", "champion's then", box=None)
    for v in found.versions:
        table.add_row(
            v.version,
            version_status(v, found),
            f"{time.time() - v.created_ts / 1000:.0f} s",
            v.parent or UNKNOWN,
            *(percent(v.metrics.get(metric)) for metric in ("ndcg@10", "champion_ndcg@10")),
        )
    show(table)
    for v in found.versions:
        if v.reason:
            show(f"{v.version}  {v.reason}")


def version_status(version: "VersionReport", found: "Models") -> str:
    """What a version is used for now."""
    if version.version == found.serving:
        return "serving, pinned" if found.pinned else "serving"
    if version.version == found.candidate:
        return "candidate"
    return "" if version.promoted else "not promoted"
