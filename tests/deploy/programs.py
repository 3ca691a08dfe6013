"""Programs that the extra `ops` installs beside Python, or that are on the PATH."""

import shutil
import sys
from pathlib import Path

import pytest


def program(name: str) -> str:
    """The path of a program. Skips the test where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed: make test-ops and make test-image do it")
    return found
