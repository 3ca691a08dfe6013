"""Every benchmark, one after the other."""

import runpy

for name in ("ingest", "ranking", "latency", "temporal"):
    print(f"== {name}", flush=True)
    runpy.run_module(f"benchmarks.speed.{name}", run_name="__main__")
