"""An artifact store that fails as object stores do: it drops, stalls, truncates and lies. The scheme is faulty://."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class NoCredentialsError(Exception):
    """As botocore's: no OSError."""


class EndpointConnectionError(Exception):
    """As botocore's."""


class ClientError(Exception):
    """As botocore's."""


FAILURES: dict[str, Exception] = {
    "no credentials": NoCredentialsError("Unable to locate credentials"),
    "endpoint refuses": EndpointConnectionError('Could not connect to the endpoint URL: "http://127.0.0.1:9/bucket"'),
    "HTTP 500": ClientError("An error occurred (500) when calling the ListObjectsV2 operation: Internal Server Error"),
    "no package": ImportError("Install s3fs to access S3"),
    "no such scheme": ValueError("Protocol not known: s4"),
    "no permission": PermissionError("Access Denied"),
    "connection dropped": ConnectionResetError("Connection reset by peer"),
    "a bug in the package": KeyError("ETag"),
    "its own timeout": TimeoutError("timed out"),
    "no memory": MemoryError(),
}


class FaultyFileSystem(MemoryFileSystem):
    """Memory, and one fault at a time."""

    protocol = "faulty"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    fails: Exception | None = None
    fails_in: frozenset[str] = frozenset()
    """The calls that fail; empty: all."""
    stalls = threading.Event()
    """Calls wait until it is set."""
    stalls.set()
    stalled = 0
    reads: Callable[[bytes], bytes] = staticmethod(lambda content: content)
    lists: Callable[[list], list] = staticmethod(lambda entries: entries)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("faulty://", "memory://"))

    def _meet(self, call: str) -> None:
        cls = FaultyFileSystem
        if cls.fails_in and call not in cls.fails_in:
            return
        if not cls.stalls.is_set():
            cls.stalled += 1
            cls.stalls.wait(60)
        if cls.fails is not None:
            raise cls.fails

    def cat_file(self, path, start=None, end=None, **kwargs):
        self._meet("read")
        return FaultyFileSystem.reads(super().cat_file(path, start=start, end=end, **kwargs))

    def ls(self, path, detail=True, **kwargs):
        self._meet("list")
        return FaultyFileSystem.lists(super().ls(path, detail=detail, **kwargs))

    def pipe_file(self, path, value, **kwargs):
        self._meet("write")
        super().pipe_file(path, value)

    def put_file(self, lpath, rpath, **kwargs):
        self._meet("write")
        with open(lpath, "rb") as file:
            super().pipe_file(rpath, file.read())

    def rm_file(self, path):
        self._meet("remove")
        super().rm_file(path)


fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)


@contextmanager
def fault(**settings) -> Iterator[type[FaultyFileSystem]]:
    """Set a fault for the time of a block: `fails`, `fails_in`, `reads`, `lists`, or `stalls=True`."""
    before = {name: FaultyFileSystem.__dict__[name] for name in ("fails", "fails_in", "reads", "lists")}
    if settings.pop("stalls", False):
        FaultyFileSystem.stalls.clear()
    if "fails_in" in settings:
        settings["fails_in"] = frozenset(settings["fails_in"])
    for name, value in settings.items():
        setattr(FaultyFileSystem, name, staticmethod(value) if name in ("reads", "lists") else value)
    try:
        yield FaultyFileSystem
    finally:
        FaultyFileSystem.stalls.set()
        for name, value in before.items():
            setattr(FaultyFileSystem, name, value)
