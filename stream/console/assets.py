"""Scripts, styles and pictures of the console. A file's name has its hash, so a browser keeps it for a year."""

import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

FOLDER = Path(__file__).parent / "static"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
HASH_CHARS = 12


class Asset(NamedTuple):
    """One file, as it is and compressed."""

    path: str
    """Where it is served."""
    content_type: str
    content: bytes
    compressed: bytes


class Assets:
    """Every file of the folder, in memory."""

    def __init__(self) -> None:
        self._by_name = {
            file.name: _asset(file) for file in sorted(FOLDER.rglob("*")) if file.is_file() and file.suffix in TYPES
        }
        self._by_path = {asset.path: asset for asset in self._by_name.values()}

    def url(self, name: str) -> str:
        """Where the file of this name is served. Raises KeyError."""
        return self._by_name[name].path

    @property
    def compressed_bytes(self) -> int:
        """What a browser loads of all files together."""
        return sum(len(asset.compressed) for asset in self._by_name.values())

    async def handle(self, request: web.Request) -> web.Response:
        """Serve a file."""
        asset = self._by_path.get(request.path)
        if asset is None:
            raise web.HTTPNotFound(text="no such file\n")
        headers = {
            "Content-Type": f"{asset.content_type}; charset=utf-8",
            "Cache-Control": "public, max-age=31536000, immutable",
            "X-Content-Type-Options": "nosniff",
            "Vary": "Accept-Encoding",
        }
        if "gzip" not in request.headers.get("Accept-Encoding", ""):
            return web.Response(body=asset.content, headers=headers)
        return web.Response(body=asset.compressed, headers=headers | {"Content-Encoding": "gzip"})


def _asset(file: Path) -> Asset:
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:HASH_CHARS]
    path = f"/assets/{file.stem}.{digest}{file.suffix}"
    return Asset(path, TYPES[file.suffix], content, gzip.compress(content, 9, mtime=0))
