"""The artifact store: the only module that calls fsspec. A path, or an fsspec URL (s3://, gs://, memory://).

Every call has a time limit, and every failure is raised as the error that the caller chose. Names are relative and
strict, so that nothing outside the store is read, written or removed, whatever a file in it says.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from state.signing import Keys, is_signed, sign

T = TypeVar("T")
P = ParamSpec("P")

CALL_WITHIN_S = 20.0
"""Time limit of a call, beside the time that its bytes may take."""
MIN_BYTES_PER_S = 500_000
"""A transfer that is slower than this fails."""
ASK_AGAIN_S = 30.0
"""After a call that passed its time limit, calls to the same store fail at once for this long. A thousand files then
do not take a thousand limits."""
CHUNK_BYTES = 32 << 20
"""A larger file is downloaded in several calls."""
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "adl", "oss", "r2", "hf"})
"""Stores without folders: `makedirs` would create a bucket there, under a name that may be mistyped."""
MAX_MANIFEST_BYTES = 16 << 20
"""Largest manifest that is read."""
SIGNATURE = ".sig"
"""The signature of a manifest is in a file of this suffix beside it."""
NAME = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,255}")
"""A file or folder in the store: no separators, and not only dots."""
SHA256 = re.compile(r"[0-9a-f]{64}")

_unanswered_until: dict[str, float] = {}
_file_systems: dict[str, tuple[Any, str]] = {}


class ArtifactStore:
    """Files in an artifact store. Raises `error`, with a message for a person, for everything that fails."""

    def __init__(self, url: str, error: type[Exception], keys: Keys = ()) -> None:
        self._url, self._error, self._keys = url, error, keys
        self.shown = shown(url)
        """The URL for messages, without a password."""

    def read(self, name: str, max_bytes: int, size: int | None = None) -> bytes | None:
        """A file; None if there is none. A file of another size than `size`, or over `max_bytes`, is an error."""
        if size is not None and not 0 <= size <= max_bytes:
            raise self._error(f"{name} in {self.shown} has {size:,} bytes, and at most {max_bytes:,} are read")
        if size == 0:
            return b""
        upto = max_bytes + 1 if size is None else size
        content = self._call(f"read {name}", partial(_read, name, 0, upto), size or 0, True)
        if content is not None and size is not None and len(content) != size:
            raise self._error(f"{name} in {self.shown} has {len(content):,} bytes, its manifest names {size:,}")
        if content is not None and len(content) > max_bytes:
            raise self._error(f"{name} in {self.shown} has more than {max_bytes:,} bytes, and is not read")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all where the store is a path."""

        def put(fs: Any, root: str) -> None:
            with _replacing(fs, _place(fs, root, name)) as place:
                fs.pipe_file(place, content)

        self._call(f"write {name}", put, len(content))

    def upload(self, file: Path, name: str) -> None:
        """Copy a file of this machine into the store."""

        def put(fs: Any, root: str) -> None:
            with _replacing(fs, _place(fs, root, name)) as place:
                fs.put_file(str(file), place)

        self._call(f"write {name}", put, file.stat().st_size)

    def download(self, name: str, size: int, target: Path) -> str:
        """Copy at most `size` bytes of a file to this machine; return the SHA-256 of what came."""
        digest = hashlib.sha256()
        with target.open("wb") as file:
            for start in range(0, size, CHUNK_BYTES):
                end = min(start + CHUNK_BYTES, size)
                chunk = self._call(f"read {name}", partial(_read, name, start, end), end - start, True)
                if chunk is None:
                    raise self._error(f"{self.shown} has no {name}")
                chunk = chunk[: end - start]
                digest.update(chunk)
                file.write(chunk)
                if len(chunk) < end - start:
                    break
        return digest.hexdigest()

    def list(self, folder: str = "") -> dict[str, int | None]:
        """The names in a folder, with the size of each file; None for a folder. Other names are left out."""

        def ls(fs: Any, root: str) -> list[dict[str, Any]]:
            fs.invalidate_cache()
            found: list[dict[str, Any]] = fs.ls(_place(fs, root, folder), detail=True)
            return found

        entries = self._call(f"list {folder or 'its folders'}", ls, 0, True) or []
        sizes = {e["name"].rstrip("/").rsplit("/", 1)[-1]: e["size"] if e["type"] == "file" else None for e in entries}
        return {name: size for name, size in sizes.items() if NAME.fullmatch(name)}

    def remove(self, name: str) -> None:
        """Remove a file; no error if there is none."""
        self._call(f"remove {name}", lambda fs, root: fs.rm_file(_place(fs, root, name, follow=False)), 0, True)

    def remove_folder(self, folder: str, first: str) -> None:
        """Remove the files of a folder, `first` before all others, and the folder if it is empty then."""
        names = [name for name, size in self.list(folder).items() if size is not None]
        for name in sorted(names, key=lambda n: n != first):
            self.remove(f"{folder}/{name}")

        def rmdir(fs: Any, root: str) -> None:
            if isinstance(fs, LocalFileSystem):  # an object store has no folders
                with contextlib.suppress(OSError):
                    fs.rmdir(_place(fs, root, folder, follow=False))

        self._call(f"remove {folder}", rmdir)

    def write_manifest(self, name: str, content: bytes) -> None:
        """Write a manifest, after its signature where there is a key."""
        if self._keys:
            self.write(name + SIGNATURE, sign(self._keys, _purpose(name), content).encode())
        self.write(name, content)

    def read_manifest(self, name: str) -> bytes | None:
        """A manifest; None if there is none. With a key, one that is not signed is an error."""
        content = self.read(name, MAX_MANIFEST_BYTES)
        if content is not None:
            self.check_signature(name, content)
        return content

    def check_signature(self, name: str, content: bytes) -> None:
        """Raise the error where there is a key, and the manifest is not signed with it."""
        if not self._keys:
            return
        signature = (self.read(name + SIGNATURE, 1000) or b"").decode(errors="replace")
        if not is_signed(self._keys, _purpose(name), content, signature):
            how = "is signed with another key" if signature else "is not signed"
            raise self._error(
                f"{name} in {self.shown} {how}, and kafka.signing_key is set: it is refused. docs/operating.md"
                f"#signatures has the commands"
            )

    def _call(self, what: str, work: Callable[[Any, str], T], size: int = 0, may_lack: bool = False) -> T | None:
        """What `work` returns for the file system and the root of the store; None where it `may_lack` the file."""
        silent_s = _unanswered_until.get(self._url, 0.0) - time.monotonic()
        if silent_s > 0:
            raise self._error(
                f"cannot {what}: the artifact store {self.shown} did not answer, and is asked again in {silent_s:.0f} s"
            )
        limit = CALL_WITHIN_S + size / MIN_BYTES_PER_S
        calling = in_thread(lambda: work(*_opened(self._url)))
        try:
            return calling.result(limit)
        except Exception as error:  # each file system raises errors of its own
            if may_lack and isinstance(error, FileNotFoundError):
                return None
            _file_systems.pop(self._url, None)  # it may keep what failed: a connection, or that there is no password
            if not calling.done():
                _unanswered_until[self._url] = time.monotonic() + ASK_AGAIN_S
                reason = f"no answer within {limit:.0f} s"
            else:
                reason = _reason(error)
        raise self._error(
            f"cannot {what}: the artifact store {self.shown} fails: {reason.replace(self._url, self.shown)}"
        )


class OutsideStore(Exception):
    """A name or a link in the store leads elsewhere."""


def in_thread(work: Callable[[], T]) -> "Future[T]":
    """Do work in a thread of its own. Unlike a thread of an executor, a hung one lets the process end."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # from here on nobody can cancel it

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="artifact-store").start()
    return future


async def beside(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Do work that calls an artifact store, while the event loop goes on. The process can end before the work."""
    return await asyncio.wrap_future(in_thread(lambda: work(*arguments, **named)))


def shown(url: str) -> str:
    """A URL for messages: without a user and a password."""
    return re.sub(r"//[^/@]*@", "//…@", url)


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and its root. fsspec would keep one a thread, and every call has a new thread."""
    if (known := _file_systems.get(url)) is None:
        fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
        known = _file_systems.setdefault(url, (fs, root.rstrip("/")))
    return known


def _place(fs: Any, root: str, name: str, *, follow: bool = True) -> str:
    """Where a file is. Raises OutsideStore. Links in the store are not followed; without `follow` the last part may be
    one: removing it leaves what it leads to."""
    parts = name.split("/") if name else []
    if not all(NAME.fullmatch(part) for part in parts):
        raise OutsideStore(f"{name!r} is not a name in an artifact store")
    place = "/".join([root, *parts])
    if isinstance(fs, LocalFileSystem):
        own = parts if follow else parts[:-1]
        wanted = os.path.join(os.path.realpath(root), *own)
        real = os.path.realpath(os.path.join(root, *own))
        if real != wanted:
            raise OutsideStore(f"{place} leads through a link to {real}")
    return place


def _read(name: str, start: int, end: int, fs: Any, root: str) -> bytes:
    content: bytes = fs.cat_file(_place(fs, root, name), start=start, end=end)
    return content


@contextlib.contextmanager
def _replacing(fs: Any, place: str) -> Iterator[str]:
    """Where to write a file. On a disk a new one replaces the old as a whole; object stores do so by themselves."""
    if not OBJECT_STORES.intersection([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol):
        fs.makedirs(place.rsplit("/", 1)[0], exist_ok=True)
    if not isinstance(fs, LocalFileSystem):
        yield place
        return
    unfinished = f"{place}.{uuid.uuid4().hex}.partial"
    try:
        yield unfinished
        os.replace(unfinished, place)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)


def _purpose(name: str) -> str:
    return f"manifest {name}"


REMEDIES = {
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role",
    "EndpointConnectionError": "check AWS_ENDPOINT_URL and the network",
    "ImportError": "install that package beside anabranch",
    "ModuleNotFoundError": "install that package beside anabranch",
    "ValueError": "set `artifacts` to a path, or to an fsspec URL whose package is installed",
    "OutsideStore": "replace the link by what it leads to",
    "PermissionError": "give this user the right to list, read, write and delete there",
}
"""What helps, by the name of the error. The classes are in packages that need not be installed."""


def _reason(error: BaseException) -> str:
    kind = type(error).__name__
    text = str(error) or kind
    remedy = REMEDIES.get(kind, "check the store and `artifacts`")
    return f"{text if isinstance(error, OSError | OutsideStore) else f'{kind}: {text}'}; {remedy}"
