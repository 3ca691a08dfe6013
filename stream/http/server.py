"""An HTTP server in the event loop of its process, on one address that a setting names."""

import logging

from aiohttp import web

log = logging.getLogger("anabranch.http")

STOP_WITHIN_S = 2.0
"""Requests that are being answered when the process ends get this long."""


class HttpServer:
    """Serves an application on HOST:PORT until it is stopped."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_WITHIN_S)
        self._host, self._port = host, port

    async def start(self) -> int:
        """Listen; return the port, which the system chooses where it is 0. Raises OSError: the port is in use."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        port: int = self._runner.addresses[0][1]
        log.info("HTTP on http://%s:%d", self._host, port)
        return port

    async def stop(self) -> None:
        """Answer what has begun, and close."""
        await self._runner.cleanup()
