"""Every benchmark, one after the other."""

import runpy
from pathlib import Path

for name in ("ingest", "ranking"):
    print(f"== {name}", flush=True)
    runpy.run_path(str(Path(__file__).with_name(f"{name}.py")), run_name="__main__")
