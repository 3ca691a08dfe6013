"""How a process logs: lines for people, or one JSON object a line.

The keys of an object are those of `JsonFormatter`. They are part of the interface: docs/operating.md lists them.
"""

import contextlib
import logging
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import msgspec

from stream.config import LogSettings
from stream.printable import PrintableFormatter, printable_json

log = logging.getLogger("anabranch")

TEXT = "%(asctime)s %(levelname)s %(message)s"


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object, in characters that are for print: no newline is ever inside a line."""

    def __init__(self, instance: str, encoding: str | None) -> None:
        super().__init__()
        self._instance, self._encoding = instance, encoding

    def format(self, record: logging.LogRecord) -> str:
        """The object of a record, with the traceback of its exception in one field."""
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "ts": f"{second}.{int(record.created % 1 * 1000):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": _utf8(_message_of(record)),
            "instance": _utf8(self._instance),
        }
        if record.exc_info:
            line["exception"] = _utf8(self.formatException(record.exc_info))
        return printable_json(msgspec.json.encode(line), self._encoding)


def log_to_stderr(settings: LogSettings, instance: str) -> None:
    """Log our own lines at INFO, those of libraries only if something is wrong.

    `instance` is the key of this process among the members: `worker/0`. With JSON, what Python itself would print as
    text is logged too: the error that ends a thread or the process, and warnings.
    """
    handler = logging.StreamHandler(sys.stderr)
    if settings.format == "json":
        handler.setFormatter(JsonFormatter(instance, getattr(sys.stderr, "encoding", None)))
        _log_what_python_prints()
    else:
        handler.setFormatter(PrintableFormatter(TEXT))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    log.setLevel(logging.INFO)
    for library in ("faust", "mode"):
        logging.getLogger(library).setLevel(logging.ERROR)
    # These clients log every try to connect; we log the outcome once.
    for library in ("aiokafka", "kafka", "opentelemetry"):
        logging.getLogger(library).setLevel(logging.CRITICAL)


def are_json() -> bool:
    """Whether this process logs JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


@contextlib.contextmanager
def held_until_configured() -> Iterator[list[logging.LogRecord]]:
    """Collect what is logged in the block: nobody knows yet how to log. The caller passes it to `log_held`.

    An error that ends the block logs it at once, as text.
    """
    held = _Collected()
    root = logging.getLogger()
    root.addHandler(held)
    try:
        yield held.records
    except BaseException:
        root.removeHandler(held)
        log_held(held.records)
        raise
    root.removeHandler(held)


def log_held(records: list[logging.LogRecord]) -> None:
    """Log what was collected."""
    for record in records:
        logging.getLogger(record.name).handle(record)


class _Collected(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # arguments of another library that do not fit its message
        return f"{record.msg!r} with {record.args!r}: {error}"


def _utf8(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON in UTF-8 cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def _log_what_python_prints() -> None:
    def ended(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            log.critical("the process ends by an error: %r", error, exc_info=(kind, error, where))

    def thread_ended(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None:
            error = (failed.exc_type, failed.exc_value, failed.exc_traceback)
            log.error("a thread ended by an error: %r", failed.exc_value, exc_info=error)

    def ignored(failed: Any) -> None:
        log.error("%s: %r", failed.err_msg or "an error was ignored", failed.exc_value)

    def warned(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        logging.getLogger("py.warnings").warning("%s:%d: %s: %s", filename, lineno, category.__name__, message)

    sys.excepthook, sys.unraisablehook, threading.excepthook = ended, ignored, thread_ended
    warnings.showwarning = warned
