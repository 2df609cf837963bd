"""Turns what `scripts/probe.py` and the study of prevention left in a run's `probes/` folder into parts of the report.

A file is known by the name that the command gives it, or that its help shows (`diff.json`, `probe_fit.json`, `sae/sae.json`, ...); files of
other names, such as the probe that the pipeline saves there, are no business of this section.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from emis_interp.diff_results import ModelDiff
from emis_interp.errors import DataError
from emis_interp.files.store import as_record, read_json
from emis_interp.latent_results import DifferenceSaeReport, LatentsReport
from emis_interp.prevention_results import PreventionStudy
from emis_interp.probe_results import (
    LensView,
    MonitorReport,
    MonitorThreshold,
    PatchView,
    ProbeFits,
    WeightsView,
)
from emis_interp.report import further_models, further_prevention, further_probes, further_saes
from emis_interp.report.figures_detection import reliability_figure, survival_figure
from emis_interp.report.further_parts import FurtherRow, Shown
from emis_interp.sae_results import MeasuredSaes, SaeReport

PREVENTION = "prevention.json"


@dataclass(frozen=True)
class Kind:
    """Files of one name: the command that writes them, what the page calls them, their record, and how it is shown.

    `figures`: name -> what draws it from the record, None where there is nothing to draw.
    """

    command: str
    heading: str
    record: type[Any]
    show: Callable[[Any], Shown]
    figures: Mapping[str, Callable[[Any], go.Figure | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Further:
    """One file.

    Attributes:
        file: its path from the run folder, which is `run_dir`.
        command: that writes such files.
    """

    run_dir: Path
    file: str
    command: str
    record: Any

    @property
    def kind(self) -> Kind:
        return KNOWN[Path(self.file).name]


@dataclass(frozen=True)
class FurtherPart:
    """What the page shows of one file.

    Attributes:
        page: of the same command, as a link from the report; None where there is none.
        figures: names of those drawn from it.
    """

    source: Further
    shown: Shown
    page: str | None
    figures: tuple[str, ...]


def read_further(run_dir: Path) -> tuple[list[Further], list[str]]:
    """What lies in probes/ of a run, and a note for every file that should be one of these and cannot be read."""
    found, notes, folder = list[Further](), list[str](), run_dir / "probes"
    studies = {path.parent for path in folder.rglob(PREVENTION)}  # whose folders hold measured.json of their own
    for path in sorted(folder.rglob("*.json")):
        if path.name not in KNOWN or studies.intersection(path.parent.parents):
            continue
        file, kind = path.relative_to(run_dir).as_posix(), KNOWN[path.name]
        try:
            record = as_record(read_json(path), kind.record, file)
            found.append(Further(run_dir, file, command=kind.command, record=record))
        except DataError as error:
            notes.append(f"{error}: not shown; run `{kind.command}` again.")
    order = list(KNOWN)
    return sorted(found, key=lambda one: (order.index(Path(one.file).name), one.file)), notes


def further_figures(found: Sequence[Further]) -> dict[str, go.Figure]:
    """The figures of all files; of a second file of the same kind with `_2` behind the name."""
    return {name: figure for figures in _figures(found) for name, figure in figures.items()}


def further_parts(found: Sequence[Further]) -> list[FurtherPart]:
    """What the page shows of every file, in the order of the files."""
    parts = []
    for one, figures in zip(found, _figures(found), strict=True):
        shown = one.kind.show(one.record)
        page = None if shown.page is None else Path(one.file).with_name(Path(shown.page).name)
        link = None if page is None or not (one.run_dir / page).is_file() else f"../{page.as_posix()}"
        parts.append(FurtherPart(one, shown, page=link, figures=tuple(figures)))
    return parts


def further_rows(found: Sequence[Further]) -> list[FurtherRow]:
    """The headline figures of every file."""
    return [row for part in further_parts(found) for row in part.shown.rows]


def _figures(found: Sequence[Further]) -> list[dict[str, go.Figure]]:
    """The figures of each file by their names on the page."""
    every, n_before = list[dict[str, go.Figure]](), dict[str, int]()
    for one in found:
        n = n_before[one.command] = n_before.get(one.command, 0) + 1
        drawn = {name if n == 1 else f"{name}_{n}": draw(one.record) for name, draw in one.kind.figures.items()}
        every.append({name: figure for name, figure in drawn.items() if figure is not None})
    return every


KNOWN: dict[str, Kind] = {
    "probe_fit.json": Kind("probe.py fit", "Probes with their controls", ProbeFits, further_probes.fits),
    "threshold.json": Kind("probe.py calibrate", "Threshold of a monitor", MonitorThreshold, further_probes.threshold),
    "detect.json": Kind(
        "probe.py detect",
        "What a monitor catches, when, and what it forecasts",
        MonitorReport,
        further_probes.detection,
        {"survival": survival_figure, "reliability": reliability_figure},
    ),
    "sae.json": Kind("probe.py sae", "Sparse autoencoders", SaeReport, further_saes.trained_saes),
    "measured.json": Kind(
        "probe.py measure-sae", "Sparse autoencoders that were there", MeasuredSaes, further_saes.measured_saes
    ),
    "difference_sae.json": Kind(
        "probe.py difference-sae",
        "Sparse autoencoders of organism minus base",
        DifferenceSaeReport,
        further_saes.difference_saes,
    ),
    "latents.json": Kind("probe.py latents", "Latents that differ", LatentsReport, further_saes.latents),
    "diff.json": Kind("probe.py diff", "What changed, read without a judge", ModelDiff, further_models.diff),
    "weights.json": Kind("probe.py weights", "What the adapter holds", WeightsView, further_models.weights),
    "lens.json": Kind("probe.py lens", "Where the margin forms", LensView, further_models.lens),
    "patch.json": Kind("probe.py patch", "Activations patched", PatchView, further_models.patch),
    PREVENTION: Kind(
        "study_organism.py prevention", "Prevention and repair", PreventionStudy, further_prevention.prevention
    ),
}
"""Name of a file -> what is known of such files, in the order of the page."""
