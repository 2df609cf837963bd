"""Turns a run folder, finished or not, into one checked object: what each stage left behind, or None."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from emis_interp.analyses import ANALYSES, RunProbes
from emis_interp.errors import DataError, StageError
from emis_interp.files.manifest import MANIFEST, read_manifest
from emis_interp.files.store import explain, read_json
from emis_interp.report.answer_log import Answer, AnswerLog
from emis_interp.report.further import Further, read_further
from emis_interp.report.provenance import RowReader, code_notes, file_notes
from emis_interp.results import (
    ArmRates,
    Choices,
    Configured,
    ConfiguredArm,
    Contrast,
    DirectionView,
    Interventions,
    ManifestView,
    MarginContrast,
    Margins,
    OrganismChecks,
    Rates,
    TrainingSummaryView,
)

BASE = "base"
ONE_RUN = "one finetuning run, its noise not covered"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class TrainingRun:
    """One finetuned model; `arm` is its name in records (the arm's, with the seed where it has several)."""

    arm: str
    summary: TrainingSummaryView | None
    summary_raw: Any
    metrics: list[dict[str, Any]]


@dataclass(frozen=True)
class Contents:
    """Everything that the page shows.

    Attributes:
        analysis: the files of analysis/ as they are on disk.
        further: what `scripts/probe.py` left in probes/.
        notes: what a reader must know of the folder besides: other code, exchanged files, rows that could not be read (`provenance`).
    """

    name: str
    manifest: ManifestView
    manifest_raw: dict[str, Any]
    configured: list[ConfiguredArm]
    analysis: dict[str, Any]
    rates: Rates | None
    margins: Margins | None
    direction: DirectionView | None
    interventions: Interventions | None
    organisms: OrganismChecks | None
    choices: Choices | None
    probes: RunProbes | None
    further: list[Further]
    training: list[TrainingRun]
    answers: Sequence[Answer]
    notes: list[str]

    @property
    def arms(self) -> list[str]:
        """Arm names in the order of the configuration; names that only the results know come last."""
        names = [arm.name for arm in self.configured]
        names += [arm.arm for arm in self.rates.arms] if self.rates else []
        names += [*self.margins.arms, *(row.arm for row in self.margins.contrasts)] if self.margins else []
        if self.direction is not None:
            projections = self.direction.projections
            names += [*self.direction.cosines_to_base, *(projections.arms if projections else ())]
        names += [cell.arm for cell in self.interventions.cells] if self.interventions else []
        names += [run.arm for run in self.training]
        return list(dict.fromkeys(self.arm_of.get(name, name) for name in names))

    @property
    def arm_of(self) -> dict[str, str]:
        """Model (one finetuning seed) -> its arm."""
        return {model: arm.name for arm in self.configured for model in arm.models}

    def runs_of(self, row: Contrast) -> str:
        """`3 seeds`, or that the arm is one finetuning run; empty for an arm that is not finetuned."""
        trained = {arm.name for arm in self.configured if arm.name != BASE and arm.in_context is None}
        return row.seeds or (ONE_RUN if row.arm in trained else "")

    @property
    def made(self) -> dict[str, str]:
        """Arm -> how it was made, where that is not by finetuning once."""
        return {arm.name: arm.made for arm in self.configured if arm.made}

    @property
    def contrast_arms(self) -> dict[str, str]:
        """Arm -> the arm that it is compared with besides base."""
        return {arm.name: arm.contrast for arm in self.configured if arm.contrast is not None}

    def rates_of(self, arm: str) -> ArmRates | None:
        return next((row for row in self.rates.arms if row.arm == arm), None) if self.rates else None

    def margin_contrast(self, arm: str, reference: str) -> MarginContrast | None:
        found = self.margins.contrasts if self.margins else []
        return next((row for row in found if (row.arm, row.reference) == (arm, reference)), None)


def load_contents(run_dir: Path, *, answers: bool = True) -> Contents:
    """Read a run folder.

    Args:
        answers: read them, and the training steps; a run may have very many, and verdicts and contrasts need none of them.

    Raises:
        StageError: there is no manifest, so this is no run folder.
        DataError: the manifest, a summary or a file of analysis/ is malformed; the text names the file and the key. A row that cannot be
            read (of answers, scores, training steps) is left out and named in `notes`.
    """
    manifest_path = run_dir / MANIFEST
    if not manifest_path.exists():
        raise StageError(f"{run_dir}: no manifest.json here; give the folder of a run, e.g. runs/quick")
    manifest_raw = read_manifest(run_dir)
    manifest = _view(manifest_raw, ManifestView, manifest_path)
    configured = _view(manifest.config, Configured, manifest_path).arms
    paths = {name: run_dir / "analysis" / f"{name}.json" for name in ANALYSES}
    analysis = {name: read_json(path) if path.exists() else None for name, path in paths.items()}

    def read(name: str, view: type[M]) -> M | None:
        return None if analysis[name] is None else _view(analysis[name], view, paths[name])

    direction = read("direction", DirectionView)
    if direction is not None:
        _check_lengths(direction, paths["direction"])
    rows = RowReader(run_dir)
    models = [model for arm in configured for model in arm.models]
    training = _training(run_dir, models, rows) if answers else []
    read_answers = _answers(run_dir, models, rows) if answers else []
    rates = read("rates", Rates)
    rates = None if rates is None else rates.shown()
    further, unread = read_further(run_dir)
    notes = [*code_notes(manifest), *file_notes(run_dir, manifest), *rows.notes, *unread]
    return Contents(
        name=str(manifest.config.get("name") or run_dir.resolve().name),
        manifest=manifest,
        manifest_raw=manifest_raw,
        configured=configured,
        analysis=analysis,
        rates=rates,
        margins=read("margins", Margins),
        direction=direction,
        interventions=read("interventions", Interventions),
        organisms=read("organisms", OrganismChecks),
        choices=read("choices", Choices),
        probes=read("probes", RunProbes),
        further=further,
        training=training,
        answers=read_answers,
        notes=notes,
    )


def _view(value: Any, view: type[M], path: Path) -> M:
    try:
        return view.model_validate(value)
    except ValidationError as error:
        raise DataError(f"{path}: {explain(error, view)}; run the stage that wrote it again") from None


def _check_lengths(direction: DirectionView, path: Path) -> None:
    n_layers = len(direction.layers)
    for name, value in direction:
        if name.endswith(("_auroc", "_auroc_95", "_cosine", "_norm", "_share")) and len(value) not in (0, n_layers):
            raise DataError(
                f"{path}: `{name}` has {len(value)} numbers for {n_layers} layers; run the direction stage again"
            )
    for arm, curve in direction.cosines_to_base.items():
        if len(curve) != n_layers:
            raise DataError(f"{path}: `cosines_to_base.{arm}` has {len(curve)} numbers for {n_layers} layers")


def _training(run_dir: Path, models: Sequence[str], reader: RowReader) -> list[TrainingRun]:
    """One for each folder training/ARM or training/ARM/seed-N with results, seeds in the configured order."""
    runs, order = [], {model: index for index, model in enumerate(models)}
    found = {path: path.name for path in sorted(run_dir.glob("training/*"))}
    found |= {path: f"{path.parent.name}.{path.name}" for path in run_dir.glob("training/*/seed-*")}
    folders = [(path, name) for path, name in found.items() if path.is_dir()]
    for folder, name in sorted(folders, key=lambda one: (one[0].relative_to(run_dir).parts[1], order.get(one[1], -1))):
        summary, metrics = folder / "summary.json", folder / "metrics.jsonl"
        if summary.exists() or metrics.exists():
            raw = read_json(summary) if summary.exists() else None
            checked = None if raw is None else _view(raw, TrainingSummaryView, summary)
            rows = reader.read(metrics, _LooseRow, loose=True) if metrics.exists() else []
            runs.append(TrainingRun(name, checked, raw, [row.model_dump() for row in rows]))
    return runs


class _LooseRow(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    step: int
    loss: float | None = None


def _answers(run_dir: Path, models: Sequence[str], rows: RowReader) -> AnswerLog:
    """All sampled answers with their scores: the models of the arms in the configured order first, then the intervention cells."""
    order = {model: index for index, model in enumerate(models)}
    found = AnswerLog()
    for path in sorted(run_dir.glob("samples/*.jsonl"), key=lambda one: (order.get(one.stem, len(order)), one.stem)):
        found.add(rows, path, run_dir / "scores" / path.name)
    for path in sorted(run_dir.glob("interventions/*/samples.jsonl")):
        found.add(rows, path, path.with_name("scores.jsonl"), is_intervention=True)
    return found
