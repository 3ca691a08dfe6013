"""Build the stores of a data directory again under the installation's id key, out of the stores that are there.

The log is not read: `anabranch replay --from state`. New stores lie beside the serving ones, and replace them at the
next start of the worker (`partition_stores.swap`).
"""

import shutil
from collections.abc import Callable

import msgspec

from state.id_hash import IdHash
from state.identity import KEYED_LAYOUT, LAYOUT
from state.rehash import rehash
from state.store import Store
from state.view import View, partition_path
from stream.config import Config
from stream.errors import AnabranchError
from stream.stores.partition_stores import rebuilt_path
from stream.stores.rebuild import Rebuilt


def rehash_all(config: Config, id_hash: IdHash, report: Callable[[str], None]) -> list[Rebuilt]:
    """Fold every store that has another id key into a new one. Raises AnabranchError or a StateError."""
    topic, done = config.topics.clicks, []
    with View(config.data, topic, config.state) as view:
        view.check_all_open()
        for number, served in view.partitions.items():
            if served.identity is None or served.ids == id_hash:
                continue
            path = partition_path(config.data, topic, number)
            beside = path.with_name(f"rebuilding-{path.name}")
            shutil.rmtree(beside, ignore_errors=True)
            layout = KEYED_LAYOUT if id_hash.keyed else LAYOUT
            identity = msgspec.structs.replace(served.identity, layout=layout, id_key=id_hash.key)
            store = Store(beside, identity, config.state)
            try:
                end = served.read_progress().next_offset
                folded = rehash(served, store, lambda at, n=number, to=end: report(f"partition {n}: {at:,} of {to:,}"))  # type: ignore[misc]
                done.append(Rebuilt(number, 0, store.progress.log_offset, folded))
            finally:
                store.close()
    if not done:
        raise AnabranchError(
            f"{config.data} has no store with another id key than the installation's, so nothing is built again; "
            f"`anabranch init --id-key new` makes a new key"
        )
    for rebuilt in done:  # only after all are complete
        path = partition_path(config.data, topic, rebuilt.partition)
        shutil.rmtree(rebuilt_path(path), ignore_errors=True)
        path.with_name(f"rebuilding-{path.name}").rename(rebuilt_path(path))
    return done
