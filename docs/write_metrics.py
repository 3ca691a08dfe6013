"""Write `docs/metrics.md` from the list of metrics: `make docs`."""

from pathlib import Path

from stream.metrics.catalogue import METRICS, Metric

ROOT = Path(__file__).parent.parent

PAGE = """# Health and metrics

Written from the code by `make docs`. A worker answers at `worker.http`, a trainer at `trainer.http`, `anabranch
serve` at `serve.http`. All of them have the same four paths. They need no token and show no user and no item, but
each caller that reaches the address
can read them: keep it inside your network. `deploy/prometheus` has a scrape configuration
and alerts.

## Health

| path | 200 means | 503 means |
|---|---|---|
@HEALTH@

A broker that is away, a rebalance, a pause and a full disk make a worker unready. They never fail `/livez` and
`/startupz`: a restart would not bring the broker back, and the worker would open its stores again. Before a process
has found its broker it answers too. The answer is JSON:

    $ curl -s localhost:8081/readyz
    {"status":"not ready","problems":["partition 3 is opening, not answering"]}

`anabranch health` has the same answer as its exit status, 0 or 1, and as a sentence. `--worker`, `--trainer` and
`--serve` choose; without them it judges those that have an address or have run in the data directory. Where `http` is
set it asks the process. `serve` is asked where it listens: it leaves its address in `<data>/serve.json`, because `up`
takes another port where that of `serve.http` is in use. Of a worker or trainer without an address it looks at the lock
and the status file in the data directory. It says which. A status file says less than the process: that a rebalance
lasts is in it, that a task has ended is not.

A process whose address is taken ends at its start, and says so: nobody would notice its faults.

## Metrics

`/metrics` is in Prometheus' text format. State is read when it is asked for, from memory. What a partition has is
there while this worker owns it and its store is open; then its series go. What the store counts goes on after a
restart, and never falls while the process lives: neither when a store is replaced by an older one, nor when a
partition comes back. `process_*` and `python_*` are those of Prometheus' client for Python.

- Events a second: `sum(rate(anabranch_events_total{outcome="applied"}[5m]))`
- Hit@10 of the last hour:
  `sum by (by) (rate(anabranch_prequential_hits_total[1h])) / sum by (by) (rate(anabranch_prequential_tests_total[1h]))`
- 99th percentile from click to recommendation:
  `histogram_quantile(0.99, sum by (le) (rate(anabranch_recommendation_latency_seconds_bucket[5m])))`
- Partitions that nobody owns:
  `max(anabranch_clicks_partitions) - (count(count by (partition) (anabranch_partition_phase)) or vector(0))`

There is no age of the graph: a worker ranks with its own stores, which are current.

"""
HEALTH = (
    (
        "`/livez`",
        "the event loop turns and each task of the process runs",
        "a task has ended: restart the process. A process whose loop is blocked does not answer at all",
    ),
    (
        "`/readyz`",
        "every partition that the worker owns answers, a version serves or none is named, nobody has paused "
        "it, and the group confirms it. For a trainer: it takes commands, and its last cycle did not fail",
        "the document says what is missing",
    ),
    (
        "`/startupz`",
        "the process has started, or waits for a broker",
        "it loads its version or opens its files",
    ),
)
HEADINGS = {
    ("worker",): "Of workers",
    ("trainer",): "Of trainers",
    ("serve",): "Of `anabranch serve`",
}
OF_SEVERAL = "Of several processes"


def row(metric: Metric) -> str:
    """One metric on the page."""
    labels = "; ".join(
        f"`{label}`: {', '.join(f'`{value}`' for value in values)}" if values else f"`{label}`"
        for label, values in metric.labels.items()
    )
    return f"| `{metric.full_name}` | {metric.type} | {labels} | {metric.meaning} | {metric.normal} |"


def page() -> str:
    """docs/metrics.md"""
    sections: dict[str, list[Metric]] = {heading: [] for heading in (OF_SEVERAL, *HEADINGS.values())}
    for metric in METRICS:
        sections[HEADINGS.get(metric.of, OF_SEVERAL)].append(metric)
    health = "\n".join(f"| {' | '.join(cells)} |" for cells in HEALTH)
    text = PAGE.rstrip().replace("@HEALTH@", health) + "\n"
    for heading, metrics in sections.items():
        text += f"\n### {heading}\n\n| name | type | labels | meaning | normal |\n|---|---|---|---|---|\n"
        text += "\n".join(map(row, metrics)) + "\n"
    return text


if __name__ == "__main__":
    (ROOT / "docs/metrics.md").write_text(page())
