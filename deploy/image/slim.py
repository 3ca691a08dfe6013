"""Remove from the environment what does not run in production, and write the bytecode of the rest.

    /opt/anabranch/bin/python deploy/image/slim.py      (deploy/Dockerfile)

Bytecode is worth its room: a container starts from a root that is read-only, and would compile every module each time.
"""

import compileall
import shutil
import sysconfig
from pathlib import Path
from py_compile import PycInvalidationMode

SITE = Path(sysconfig.get_path("purelib"))
TESTS = ("tests", "test")
TORCH = (
    "include",  # headers, for building extensions
    "share",
    "bin/protoc*",
    "bin/*Test",
    "bin/test_*",
    "bin/script_module_v4.ptl",
    "lib/libaoti_custom_ops.so",  # libraries of torch's own tests
    "lib/libbackend_with_compiler.so",
    "lib/libjitbackend_test.so",
    "lib/libtorchbind_test.so",
)


def size_mb(folder: Path) -> float:
    """The size of a folder's files, in MB."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir()) / 1e6


def main() -> None:
    """Remove tests and what a compiler would read; compile."""
    before = size_mb(SITE)
    for folder in [path for path in SITE.rglob("*") if path.name in TESTS and path.is_dir()]:
        shutil.rmtree(folder, ignore_errors=True)
    for pattern in TORCH:
        for path in SITE.joinpath("torch").glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for pattern in ("*.pyx", "*.pxd", "*.c", "*.cpp", "*.h", "*.a"):
        for file in SITE.rglob(pattern):
            file.unlink()
    after = size_mb(SITE)
    # The files never change: Python need not look whether they are newer than their bytecode.
    compileall.compile_dir(SITE, quiet=2, workers=0, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    print(f"{before:.0f} MB installed, {before - after:.0f} MB removed, {size_mb(SITE) - after:.0f} MB of bytecode")


if __name__ == "__main__":
    main()
