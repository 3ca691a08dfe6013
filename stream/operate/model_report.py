"""The published versions and the one that serves: the document of `anabranch models`, and `model` of `status`."""

import time

import msgspec

from model.errors import ArtifactError
from model.learning.gate import Change, Outcome
from model.learning.manifests import list_versions, manifest_sha256
from model.ranking.fusion import Fusion
from state.artifact_store import shown
from stream.config import Config
from stream.kafka.messages import Pointer
from stream.kafka.pointers import MODEL_NAME, Pointers
from stream.worker import online_weights, served_file


class LearnedWeights(msgspec.Struct):
    """Fusion weights that one worker has learned from clicks."""

    clicks: int
    """Clicks that they were learned from."""
    chosen: Fusion
    """The version's own weights."""
    now: Fusion


class ModelStatus(msgspec.Struct):
    """The version that serves."""

    version: str | None
    """None: popular items are recommended."""
    age_s: float | None
    pinned: bool
    artifacts: str | None
    """Why the artifact store cannot be read; None if it can."""
    online_weights: dict[str, LearnedWeights]
    """By the name of the worker's instance."""
    named: str | None = None
    """The version that the pointer names."""
    problem: str | None = None
    """Why the named version does not serve; None if it does."""


class VersionReport(msgspec.Struct):
    """One published version."""

    version: str
    serving: bool
    parent: str | None
    created_ts: int
    trained_offsets: dict[str, int]
    metrics: dict[str, float]
    fusion: Fusion
    promoted: bool
    reason: str
    outcome: Outcome
    change: Change | None = None
    """How the candidate compared with the champion on the newest events; None where that was not measured."""


class Models(msgspec.Struct):
    """The document of `anabranch models`: the published versions, newest last."""

    serving: str | None
    pinned: bool
    candidate: str | None
    versions: list[VersionReport]
    named: str | None = None
    """The version that the pointer names."""
    problem: str | None = None
    """Why the named version does not serve; None if it does."""


def served_version(config: Config, champion: Pointer | None) -> tuple[str | None, str | None]:
    """The version that serves, and why the one that the pointer names does not.

    The worker of this data directory has written it. Where it has not followed this pointer yet, or none runs here,
    the version serves if the artifact store has it.
    """
    if champion is None:
        return None, None
    seen = served_file.read(config.data)
    if seen is not None and (seen.named, seen.sha256) == (champion.version, champion.sha256):
        return seen.version, seen.why or None
    try:
        found = manifest_sha256(config.artifacts_url, MODEL_NAME, champion.version, config.kafka.signing_keys)
    except ArtifactError as error:
        return None, str(error)
    if found != champion.sha256:
        return None, f"{shown(config.artifacts_url)} has another version {champion.version} than the pointer names"
    return champion.version, None


def model_status(config: Config, pointers: Pointers) -> ModelStatus:
    """The serving version; its age is unknown if the artifact store cannot be read."""
    champion, why_not = served_version(config, pointers.champion)
    created_ts, problem = None, None
    try:
        versions = reversed(list_versions(config.artifacts_url, MODEL_NAME, config.kafka.signing_keys))
        created_ts = next((m.created_ts for m in versions if m.version == champion), None)
    except ArtifactError as error:
        problem = str(error)
    return ModelStatus(
        version=champion,
        age_s=None if created_ts is None else round(time.time() - created_ts / 1000, 1),
        pinned=bool(pointers.champion and pointers.champion.pinned),
        artifacts=problem,
        online_weights=learned_weights(config, champion),
        named=pointers.champion.version if pointers.champion else None,
        problem=why_not,
    )


def learned_weights(config: Config, champion: str | None) -> dict[str, LearnedWeights]:
    """By worker of this data directory: the champion's fusion weights, and those learned from clicks since."""
    return {
        instance: LearnedWeights(saved.learned.clicks, saved.learned.chosen, saved.learned.fusion)
        for instance, saved in online_weights.read(config.data).items()
        if config.ranking.online_clicks and saved.version == champion
    }


def models(config: Config, pointers: Pointers) -> Models:
    """Published versions, newest last, and which one serves. Raises ArtifactError."""
    champion, why_not = served_version(config, pointers.champion)
    return Models(
        serving=champion,
        pinned=bool(pointers.champion and pointers.champion.pinned),
        candidate=pointers.scored.version if pointers.scored else None,
        versions=[
            VersionReport(
                version=m.version,
                serving=m.version == champion,
                parent=m.parent,
                created_ts=m.created_ts,
                trained_offsets={str(partition): offset for partition, offset in m.offsets.items()},
                metrics=m.metrics,
                fusion=m.fusion,
                promoted=m.verdict.promoted,
                reason=m.verdict.reason,
                outcome=m.verdict.outcome or "promoted",
                change=m.verdict.change,
            )
            for m in list_versions(config.artifacts_url, MODEL_NAME, config.kafka.signing_keys)
        ],
        named=pointers.champion.version if pointers.champion else None,
        problem=why_not,
    )
