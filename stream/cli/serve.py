"""`serve`: the HTTP interface, and the console in a browser."""

from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.app import command, utf8

if TYPE_CHECKING:
    from stream.config import Config


@command(logs_as="serve")
def serve(
    *,
    settings: "Config",
    instance: Annotated[
        str | None, typer.Option("--instance", help="Name of this process among those that serve.", callback=utf8)
    ] = None,
) -> None:
    """Answer over HTTP: recommendations, related items, and events for Kafka; and the console for a browser."""
    import asyncio
    import contextlib
    import signal

    import msgspec

    from stream.cli.process import raise_open_file_limit
    from stream.console.routes import add_routes
    from stream.errors import ConfigError, DataDirectoryError
    from stream.local.data_directory import create_data_directory
    from stream.members.follow import MembersFollower
    from stream.serve.service import ServeService

    if not settings.serve.http:
        raise ConfigError(
            "setting 'serve.http' is empty, so there is no address to answer at: set HOST:PORT, as in "
            "'127.0.0.1:8080'. Empty, it keeps `anabranch up` from starting serve"
        )
    if instance is not None:
        settings = msgspec.structs.replace(settings, serve=msgspec.structs.replace(settings.serve, instance=instance))
    raise_open_file_limit()
    with contextlib.suppress(DataDirectoryError):  # it runs without one: only the plots are then lost at a restart
        create_data_directory(settings.data)

    async def run_until_signal() -> None:
        service = ServeService(settings)
        add_routes(service.app, settings, MembersFollower(settings), lambda: service.client)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, service.stop)
        await service.run()

    asyncio.run(run_until_signal())
