"""The operating system's process of one worker: signals, an end within bounded time, and logging of stray errors."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
from aiokafka.errors import KafkaError
from mode import ServiceT

log = logging.getLogger("anabranch.worker")

CLOSE_WITHIN_S = 0.05


class Process(faust.Worker):
    """Runs one worker until a signal. It then stops everything, or ends after `end_within_s` without waiting longer.

    Kafka clients wait for a frozen broker without a limit. Nothing is lost: the state is on disk, and the log has the
    rest.
    """

    def __init__(
        self, app: faust.App, service: ServiceT, failure: Callable[[], Exception | None], end_within_s: float
    ) -> None:
        super().__init__(app, service, override_logging=False, redirect_stdouts=False, quiet=True, loglevel="warning")
        self.spinner = None  # it writes a terminal's escape codes even into a log
        self._failure, self._end_within_s = failure, end_within_s

    def install_signal_handlers(self) -> None:
        """Stop at SIGINT and SIGTERM."""
        super().install_signal_handlers()
        for number, stop in ((signal.SIGINT, self._on_sigint), (signal.SIGTERM, self._on_sigterm)):
            self.loop.add_signal_handler(number, self._end, stop)

    async def _sentinel_task(self) -> None:
        """Let the loop close what was stopped. Without this mode waits for a second, and users with it."""
        await asyncio.sleep(CLOSE_WITHIN_S)

    @property
    def failure(self) -> Exception | None:
        """Why the worker ended by itself."""
        return self._failure()

    def _end(self, stop: Callable[[], None]) -> None:
        stop()
        limit = threading.Timer(self._end_within_s, self._end_now)
        limit.daemon = True
        limit.start()

    def _end_now(self) -> None:
        log.warning(
            "not stopped %g s after the signal: no broker answers; ending without it, nothing is lost "
            "(worker.end_within_s)", self._end_within_s,
        )  # fmt: skip
        if (failure := self.failure) is not None:
            log.error("%s", failure)
        os._exit(0 if failure is None else 1)


def log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log errors outside the tasks we await, but not a request that the Kafka client gave up: we log the broker."""
    if not isinstance(context.get("exception"), KafkaError):
        loop.default_exception_handler(context)


def log_thread_error(failed: threading.ExceptHookArgs) -> None:
    """Log what ended a thread, but not aiokafka's `close` where Faust's consumer stops while it connects."""
    where = failed.exc_traceback
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    closing = where is not None and Path(where.tb_frame.f_code.co_filename).parts[-2:] == ("aiokafka", "conn.py")
    if not (closing and failed.exc_type is AttributeError):
        error = (failed.exc_type, failed.exc_value, failed.exc_traceback)
        log.error("a thread ended by an error", exc_info=error)  # type: ignore[arg-type]
