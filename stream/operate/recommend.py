"""One answer outside the worker: its recommender, versions and weights, over a read-only view of its stores."""

import msgspec
import numpy as np

from model.errors import ArtifactError
from state.errors import StateError
from state.id_hash import IdHash
from state.pending import Unanswered
from state.titles import Titles
from state.view import View
from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.messages import Pointer, Recommendation
from stream.kafka.pointers import Pointers
from stream.stores.artifacts import versions_before
from stream.times import now_ms
from stream.worker import online_weights, served_file
from stream.worker.recommender import Recommender
from stream.worker.served_versions import load_version
from stream.worker.status_file import read


def answer_now(config: Config, view: View, pointers: Pointers, user: str) -> Recommendation:
    """The recommendation message for one user, as the worker would send it now. Raises AnabranchError.

    The worker counts clicks in memory, this reads them from its state. So a score can differ in its last digits, and
    so can the place of an item that the version does not know yet.
    """
    if not view.partitions:
        raise AnabranchError(f"no state in {config.data}: has a worker run with this --data yet?")
    try:
        titles = Titles(config.data, view.ids, read_only=True)
    except StateError:
        titles = None
    try:
        recommender = Recommender(_as_the_worker(config), view.partitions, titles)
        _install_versions(recommender, config, pointers, view.ids)
        return _answer(recommender, view, user, _event_time(config, view))
    finally:
        if titles is not None:
            titles.close()


def _as_the_worker(config: Config) -> Config:
    """The configuration under the name of the worker whose learned weights are the newest here."""
    instance = online_weights.newest_instance(config.data) or config.worker.instance
    return msgspec.structs.replace(config, worker=msgspec.structs.replace(config.worker, instance=instance))


def _install_versions(recommender: Recommender, config: Config, pointers: Pointers, id_hash: IdHash) -> None:
    """Serve the champion, and in an A/B test the candidate, with the weights that the worker has learned."""
    if pointers.champion is None:
        return
    try:
        recommender.versions.serve(load_version(pointers.champion, config, id_hash))
    except ArtifactError as error:
        if not _serve_one_before(recommender, config, pointers.champion):
            raise AnabranchError(str(error)) from None
    if config.worker.ab and pointers.scored is not None:
        try:
            recommender.versions.score(load_version(pointers.scored, config, id_hash))
        except ArtifactError:
            return  # a worker that cannot load the candidate answers everybody with the champion


def _serve_one_before(recommender: Recommender, config: Config, named: Pointer) -> bool:
    """Serve the version that the worker serves because it cannot load the named one; False if it serves none."""
    served = served_file.read(config.data)
    if served is None or served.version is None or served.named != named.version:
        return False
    try:
        [pointer] = [p for p in versions_before(named, config) if p.version == served.version]
        recommender.versions.serve(load_version(pointer, config))
    except (ArtifactError, ValueError):
        return False
    return True


def _event_time(config: Config, view: View) -> int:
    """Event time now, ms, as the worker of this data directory has it for requests."""
    newest, now, status = (
        max(p.read_progress().newest_ts for p in view.partitions.values()),
        now_ms(),
        read(config.data),
    )
    if status is not None and status.event_ts:
        newest = max(newest, status.event_ts + now - status.ts)
    return min(newest, now)


def _answer(recommender: Recommender, view: View, user: str, moment: int) -> Recommendation:
    key = view.ids.of(user)
    one = np.array([key], np.uint64)
    number = next((n for n, p in view.partitions.items() if len(p.sequences(one).steps)), next(iter(view.partitions)))
    partition = view.partitions[number]
    steps = partition.sequences(one).steps
    ts = int(steps["ts"][-1]) if len(steps) else -1
    asked = {key: Unanswered(0, partition.read_progress().next_offset - 1, ts)}
    [answer] = recommender.recommend(number, asked, moment=moment)
    message = msgspec.json.decode(answer.message, type=Recommendation)
    return msgspec.structs.replace(message, user=user, emitted_ts=now_ms())
