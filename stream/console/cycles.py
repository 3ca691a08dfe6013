"""What is being learned now, and the results of past cycles."""

from typing import Any

from aiohttp import web

from model.errors import ArtifactError
from stream.console.console import CONSOLE, Console
from stream.console.notices import answer, redirect
from stream.errors import AnabranchError
from stream.operate.model_report import VersionReport
from stream.operate.send_command import send_command

ACCEPTED = ("waiting", "started", "done", "kept", "failed")
REPLY_WITHIN_S = 8.0
SHOWN_VERSIONS, SHOWN_RESULTS = 30, 30


async def page(request: web.Request) -> web.Response:
    """The whole page."""
    console = request.app[CONSOLE]
    versions, problem = await published(console)
    return console.pages.render(
        request, "cycles.html", versions=versions, problem=problem, notice=answer(request),
        results=sorted(console.history.results, key=lambda r: -r.ts)[:SHOWN_RESULTS],
        settings=console.config.trainer, **_now(console),
    )  # fmt: skip


async def now(request: web.Request) -> web.Response:
    """What the trainer does, loaded again every two seconds."""
    console = request.app[CONSOLE]
    return console.pages.render(request, "cycles_now.html", settings=console.config.trainer, **_now(console))


async def start(request: web.Request) -> web.StreamResponse:
    """Start a cycle; its version serves, or is only scored."""
    console = request.app[CONSOLE]
    shadow = (await request.post()).get("do") == "shadow"

    async def send() -> str:
        reply = await send_command(console.config, "retrain", ACCEPTED, REPLY_WITHIN_S, shadow=shadow)
        return reply.message

    return redirect(request, "/cycles", await console.act(send, "No trainer has confirmed the command"))


async def published(console: Console) -> tuple[list[VersionReport], str | None]:
    """The published versions, newest first, and why they cannot be read."""
    try:
        return list(reversed((await console.models()).versions))[:SHOWN_VERSIONS], None
    except (AnabranchError, ArtifactError) as error:
        return [], str(error)


def _now(console: Console) -> dict[str, Any]:
    found = console.live()
    return {
        "trainers": found.trainers,
        "away": console.away,
        "broker": console.broker,
        "address": console.config.broker,
    }
