"""Certificates for a test, in PEM: an authority, and the certificates that it signs for 127.0.0.1."""

import shutil
import subprocess
from pathlib import Path


def missing() -> str | None:
    """Why no certificates can be made here; None if they can."""
    return None if shutil.which("openssl") else "no openssl on the PATH: no certificates can be made"


class Authority:
    """Signs certificates in a folder; `ca_file` is its own certificate."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self.ca_file, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2", "-subj", f"/CN={name}",
            "-addext", "keyUsage=critical,keyCertSign", "-keyout", self._key, "-out", self.ca_file,
        )  # fmt: skip

    def sign(self, name: str) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1 with the common name `name`, and its key."""
        stem = self._folder / f"{name}-by-{self._name}"
        cert, key, request, wanted = (stem.with_suffix(s) for s in (".pem", ".key", ".csr", ".ext"))
        wanted.write_text(
            "subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
            "extendedKeyUsage=serverAuth,clientAuth\n"
        )
        _openssl(
            "req", "-new", "-newkey", "rsa:2048", "-noenc", "-subj", f"/CN={name}", "-keyout", key, "-out", request
        )
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.ca_file, "-CAkey", self._key, "-CAcreateserial", "-days", "2",
            "-extfile", wanted, "-out", cert,
        )  # fmt: skip
        return cert, key


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
