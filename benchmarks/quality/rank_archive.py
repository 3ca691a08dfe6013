"""Ranks of test events, stored so that variants can be compared event by event.

A run writes one loose file: `FOLDER/ranks/DATASET.VARIANT.SEED.npz`. `python -m benchmarks.quality.pack` merges the
loose files of a folder into one archive for each data set, `FOLDER/DATASET.npz`. Readers prefer the loose file, so
a new run counts before it is packed.

An archive holds four arrays. `variant` and `seed` name the R runs. `filtered` and `unfiltered` are uint8 [tests, R]:
the rank of each test's target with and without the user's earlier items left out, capped at `MAX_RANK`. Tests come
first because the runs of one test agree more than the tests of one run: the archive is half as large.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

MAX_RANK = 20
"""Larger ranks are stored as this rank. No figure of the tables depends on larger ranks."""
SEEN_ITEMS = ("filtered", "unfiltered")

SmallRanks = npt.NDArray[np.uint8]
Run = tuple[str, int]
"""Variant and seed."""


def archive_file(folder: Path, dataset: str) -> Path:
    """The archive of a data set."""
    return folder / f"{dataset}.npz"


def loose_file(folder: Path, dataset: str, run: Run) -> Path:
    """The file that one run writes."""
    variant, seed = run
    return folder / "ranks" / f"{dataset}.{variant.replace(' ', '_')}.{seed}.npz"


def write_loose(folder: Path, dataset: str, run: Run, ranks: dict[str, npt.NDArray[np.int64]]) -> None:
    """Write the ranks of one run: `filtered` and `unfiltered`, one rank a test."""
    file = loose_file(folder, dataset, run)
    file.parent.mkdir(parents=True, exist_ok=True)
    small = {seen: np.minimum(ranks[seen], MAX_RANK).astype(np.uint8) for seen in SEEN_ITEMS}
    np.savez_compressed(file, filtered=small["filtered"], unfiltered=small["unfiltered"])


class RankArchive:
    """The ranks of one data set's runs in a folder, packed and loose."""

    def __init__(self, folder: Path, dataset: str) -> None:
        self._folder, self._dataset = folder, dataset
        self._columns: dict[Run, int] = {}
        self._packed: dict[str, SmallRanks] = {}
        file = archive_file(folder, dataset)
        if file.exists():
            with np.load(file) as stored:
                runs = zip(stored["variant"].tolist(), stored["seed"].tolist(), strict=True)
                self._columns = {run: column for column, run in enumerate(runs)}
                self._packed = {seen: stored[seen] for seen in SEEN_ITEMS}

    @property
    def packed_runs(self) -> list[Run]:
        """The runs in the archive file."""
        return list(self._columns)

    def ranks(self, run: Run, seen: str) -> SmallRanks:
        """The ranks [tests] of a run, with seen items `filtered` or `unfiltered`.

        Raises FileNotFoundError if the folder has none.
        """
        loose = loose_file(self._folder, self._dataset, run)
        if loose.exists():
            with np.load(loose) as stored:
                return np.asarray(stored[seen], np.uint8)
        if run not in self._columns:
            archive = archive_file(self._folder, self._dataset)
            raise FileNotFoundError(
                f"no ranks of {run[0]!r}, seed {run[1]}, in {loose} or {archive}."
                " Intervals need them. Measure the variant again with"
                f" `python -m benchmarks.quality.global_temporal --out {self._folder}`"
            )
        return self._packed[seen][:, self._columns[run]]


def write_archive(folder: Path, dataset: str, runs: dict[Run, dict[str, SmallRanks]]) -> None:
    """Write the archive of a data set. Raises ValueError if the runs have different numbers of tests."""
    sizes = {len(ranks[seen]) for ranks in runs.values() for seen in SEEN_ITEMS}
    if len(sizes) > 1:
        raise ValueError(
            f"runs of {dataset} have {sorted(sizes)} tests: they are of different data and cannot be compared."
            " Pack them into separate folders with `python -m benchmarks.quality.pack FOLDER TARGET`"
        )
    ordered = sorted(runs)
    np.savez_compressed(
        archive_file(folder, dataset),
        variant=np.array([variant for variant, _ in ordered]),
        seed=np.array([seed for _, seed in ordered]),
        filtered=np.stack([runs[run]["filtered"] for run in ordered], axis=1),
        unfiltered=np.stack([runs[run]["unfiltered"] for run in ordered], axis=1),
    )
