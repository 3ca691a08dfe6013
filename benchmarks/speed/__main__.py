"""The speed benchmarks, one after the other: `make bench`.

Each prints its figures as one JSON line, ratios first.
"""

import runpy

for name in ("ingest", "ranking", "latency", "temporal"):
    print(f"== {name}", flush=True)
    runpy.run_module(f"benchmarks.speed.{name}", run_name="__main__")
