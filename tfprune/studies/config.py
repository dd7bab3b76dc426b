"""The options of ``reproduce``."""

from __future__ import annotations

from dataclasses import dataclass

from tfprune.studies.study import NAMES
from tfprune.utils.checks import switch, text, whole
from tfprune.utils.option_table import COMMON, RUN, option
from tfprune.workers.asked import cluster_option, workers_option


# fmt: off
@dataclass(frozen=True)
class StudyConfig:
    """Which studies to repeat, and on what."""

    study: str = option("", text, COMMON, "STUDY",
        f"{', '.join(NAMES)}, or all.", bare=True)
    quick: bool = option(False, switch, COMMON, "",
        "Fewer epochs, samples, runs and points: under 2 minutes a study.")
    data: str | None = option(None, text, COMMON, "FILE.npz",
        "MNIST; without it scikit-learn's 1,797 digits, which figures of MNIST are not to be "
        "compared with.")
    output: str = option("studies", text, COMMON, "FOLDER",
        "The folder to write to, and to go on in.")
    list: bool = option(False, switch, COMMON, "", "Show the studies, and run nothing.")

    runs: int | None = option(None, whole(1), RUN, "NUMBER",
        "How many runs, in place of the study's own numbers.")
    seed: int = option(0, whole(0), RUN, "NUMBER",
        "Seed of the first run; the next run's is one more.")
    workers: int | None = workers_option()
    cluster: str | None = cluster_option()
