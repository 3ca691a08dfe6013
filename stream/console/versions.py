"""The published versions: what the gate found, which one serves, and the buttons that change it."""

import msgspec
from aiohttp import web

from model.errors import ArtifactError
from stream.console.console import CONSOLE
from stream.console.cycles import published
from stream.console.interval_plot import interval_plot
from stream.console.live import Live
from stream.console.notices import answer, redirect
from stream.errors import AnabranchError
from stream.kafka.messages import Pointer
from stream.kafka.pointers import pointer_to, publish_pointer, read_pointers, roll_back, ts_after

MAX_VERSION_CHARS = 18


async def page(request: web.Request) -> web.Response:
    """The whole page."""
    console = request.app[CONSOLE]
    versions, problem = await published(console)
    pointers, found = console.broker.pointers, console.live()
    champion = pointers.champion
    return console.pages.render(
        request, "versions.html", versions=versions, problem=problem, champion=champion, candidate=pointers.scored,
        live=found, plot=interval_plot(versions), comparison=comparison(found), notice=answer(request),
        parent=next((v.parent for v in versions if champion and v.version == champion.version), None),
        away=console.away, broker=console.broker, address=console.config.broker, ab=console.config.worker.ab,
    )  # fmt: skip


async def serve(request: web.Request) -> web.StreamResponse:
    """Serve and pin a version; without one, the version before."""
    console = request.app[CONSOLE]
    version = str((await request.post()).get("version", ""))[:MAX_VERSION_CHARS] or None

    async def move() -> Pointer:
        try:
            champion = (await read_pointers(console.config)).champion
            return await roll_back(console.config, champion, version)
        except ArtifactError as error:
            raise AnabranchError(str(error)) from None

    pointer = await console.act(move, "The version is not moved")
    return redirect(
        request, "/versions",
        f"Version {pointer.version} serves from now on, and is pinned: the trainer does not replace it.",
    )  # fmt: skip


async def unpin(request: web.Request) -> web.StreamResponse:
    """Let the trainer replace the serving version again; or pin the one that serves."""
    console = request.app[CONSOLE]
    pinned = (await request.post()).get("do") == "pin"

    async def move() -> Pointer:
        champion = (await read_pointers(console.config)).champion
        if champion is None:
            raise AnabranchError("There is no version yet.")
        if champion.pinned == pinned:
            raise AnabranchError(f"Version {champion.version} is {'pinned' if pinned else 'not pinned'} already.")
        moved = msgspec.structs.replace(champion, pinned=pinned, by="operator", moved_ts=ts_after(champion))
        return await publish_pointer(console.config, moved)

    pointer = await console.act(move, "The pin is not changed")
    sentence = "is pinned: the trainer does not replace it" if pinned else "serves until the trainer promotes another"
    return redirect(request, "/versions", f"Version {pointer.version} {sentence}.")


async def shadow(request: web.Request) -> web.StreamResponse:
    """Score a version beside the champion; without one, stop scoring."""
    console = request.app[CONSOLE]
    version = str((await request.post()).get("version", ""))[:MAX_VERSION_CHARS]

    async def move() -> Pointer:
        candidate = (await read_pointers(console.config)).candidate
        try:
            pointer = pointer_to(console.config, version, candidate, role="candidate")
        except ArtifactError as error:
            raise AnabranchError(str(error)) from None
        return await publish_pointer(console.config, pointer)

    await console.act(move, "The candidate is not changed")
    done = f"Version {version} is scored on live events beside the champion." if version else "No candidate is scored."
    return redirect(request, "/versions", done)


def comparison(found: Live) -> list[tuple[str, int, float, float]]:
    """Champion and candidate on the same live events: name, events, Hit@10, NDCG@10."""
    return [(key, s.events, s.rolling_hit, s.rolling_ndcg) for key, s in sorted(found.scores.items()) if " (" in key]
