"""After a restore: the pointer in Kafka may name a version that was published after the backup, and is gone."""

import msgspec

from model.errors import ArtifactError
from stream.config import Config
from stream.kafka.messages import Pointer
from stream.kafka.pointers import MODEL_NAME, pointer_to, publish_pointer, read_named


class Settled(msgspec.Struct, frozen=True):
    """What the pointer names after a restore."""

    version: str | None
    """None: the store has no version to serve."""
    message: str


async def settle(config: Config, restored: Pointer | None) -> Settled:
    """Point to a version that the artifact store has, where the pointer names one that it lacks.

    That is the version which served when the backup was written, or else the newest promoted one. A Kafka that names
    none, because it is a new one, gets the pointer of the backup. Raises BrokerUnavailable, TopicMismatch or
    ArtifactError.
    """
    pointers = await read_named(config)
    named = pointers.champion
    if pointers.scored is not None and not has(config, pointers.scored):
        await publish_pointer(config, pointer_to(config, "", pointers.candidate, role="candidate"))
    if named is None:
        if restored is None:
            return Settled(None, "no version is named yet: the trainer publishes the first one")
        return await _name_restored(config, restored)
    if has(config, named):
        return Settled(named.version, f"version {named.version} is named in Kafka, and is in the artifact store")
    if (chosen := to_serve(config, restored)) is None:
        return Settled(
            None, f"version {named.version} is named in Kafka, and the artifact store has none to serve in its place"
        )
    pinned = restored is not None and restored.pinned and restored.version == chosen
    await publish_pointer(config, pointer_to(config, chosen, named, pinned=pinned))
    return Settled(
        chosen,
        f"version {named.version} was named in Kafka and is not in the artifact store: version {chosen} is named now"
        f"{', pinned as it was' if pinned else ''}",
    )


async def _name_restored(config: Config, restored: Pointer) -> Settled:
    if (chosen := to_serve(config, restored)) is None:
        return Settled(None, "no version is named in Kafka, and the artifact store has none")
    pinned = restored.pinned and restored.version == chosen
    await publish_pointer(config, pointer_to(config, chosen, None, pinned=pinned))
    return Settled(
        chosen, f"no version was named in Kafka: version {chosen} is named now{', pinned' if pinned else ''}"
    )


def has(config: Config, pointer: Pointer) -> bool:
    """Whether the artifact store has the version, with the hash that the pointer names."""
    from model.learning.manifests import manifest_sha256

    try:
        found = manifest_sha256(config.artifacts_url, MODEL_NAME, pointer.version, config.kafka.signing_keys)
    except ArtifactError:
        return False
    return found == pointer.sha256


def to_serve(config: Config, restored: Pointer | None) -> str | None:
    """The version that served when the backup was written, or the newest promoted one that the store has."""
    from model.learning.manifests import list_versions

    if restored is not None and has(config, restored):
        return restored.version
    versions = list_versions(config.artifacts_url, MODEL_NAME, config.kafka.signing_keys)
    return next((m.version for m in reversed(versions) if m.verdict.promoted), None)
