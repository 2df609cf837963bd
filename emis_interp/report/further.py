"""Turns what `scripts/probe.py` left in a run's `probes/` folder into rows of the report: one figure each, and what stands beside it.

A file is known by the name that the command gives it by default (`diff.json`, `lens.json`, `sae/sae.json`, ...); files of other names,
such as the probe that the pipeline saves there, are no business of this table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emis_interp.diff_results import ModelDiff
from emis_interp.errors import DataError
from emis_interp.files.store import as_record, read_json
from emis_interp.latent_results import DifferenceSaeReport, LatentComparison, LatentsReport
from emis_interp.probe_results import Beside, LensView, MonitorReport, NullRange, PatchView, WeightsView
from emis_interp.report.entries import Entry, estimate_entry, missing
from emis_interp.report.style import KIND_NAMES, interval, number, percent, signed
from emis_interp.sae_results import SaeFigures, SaeReport

ARITHMETIC = ("organism", "control", "organism minus control")
"""Sums of adapters that the report shows; the file has more."""


@dataclass(frozen=True)
class Further:
    """One file: its path from the run folder, and the command that writes such files."""

    file: str
    verb: str
    record: Any


@dataclass(frozen=True)
class FurtherRow:
    """One figure of a file.

    Attributes:
        beside: what could explain the figure away: controls, nulls, baselines.
        page: of the same command, from the report; None where it makes none.
    """

    source: Further
    what: str
    figure: Entry
    beside: tuple[str, ...]
    page: str | None = None


def read_further(run_dir: Path) -> tuple[list[Further], list[str]]:
    """What lies in probes/ of a run, and a note for every file that should be one of these and cannot be read."""
    found, notes = list[Further](), list[str]()
    for path in sorted((run_dir / "probes").rglob("*.json")):
        if path.name not in KNOWN:
            continue
        file, (verb, record, _) = path.relative_to(run_dir).as_posix(), KNOWN[path.name]
        try:
            found.append(Further(file, verb, as_record(read_json(path), record, file)))
        except DataError as error:
            notes.append(f"{error}: not shown; run `probe.py {verb}` again.")
    return found, notes


def further_rows(found: list[Further]) -> list[FurtherRow]:
    """The rows of every file, in the order of the files."""
    return [row for one in found for row in KNOWN[Path(one.file).name][2](one)]


def _diff(source: Further) -> list[FurtherRow]:
    found: ModelDiff = source.record
    rows = []
    for reading in (reading for reading in found.readings if reading.primary):
        count = next(one for one in reading.counts if one.topic == found.primary_topic)
        beside = (
            *(f"{name} {n}" for name, n in count.controls.items()),
            *(
                f"{KIND_NAMES.get(kind, kind)} {_range(null, lambda n: number(n, 0))}"
                for kind, null in count.nulls.items()
            ),
            count.verdict,
        )
        figure = Entry(f"{count.count} of {count.n_top} tokens", (f"topic {count.topic}",))
        rows.append(
            FurtherRow(source, f"What changed on plain text, layer {found.layer}: {reading.what}", figure, beside)
        )
    if found.projection is not None:
        cell = found.projection.cells[0]
        figure = estimate_entry(cell.finetune_like, signed, "not measured")
        said = (f"unrelated text {signed(cell.unrelated.value)} {interval(cell.unrelated)}", found.projection.verdict)
        what = f"Cross-entropy of its own kind of text with the mean difference of the {cell.along} taken out, nats per token"
        rows.append(FurtherRow(source, what, figure, said))
    verdict = found.amplification.verdict
    rows.append(
        FurtherRow(source, "The adapter scaled up", missing("a verdict over all scales, no single number"), (verdict,))
    )
    return rows


def _lens(source: Further) -> list[FurtherRow]:
    found: LensView = source.record
    parts = [part for part in found.attribution if part.organism_shift is not None and part.part != "total"]
    if not parts:
        last = found.lens[-1]
        what = f"Margin that the lens reads at layer {last.layer}"
        return [
            FurtherRow(source, what, estimate_entry(last.base, signed, "none"), ("base alone: no organism was given",))
        ]
    most = max(parts, key=lambda part: abs(part.organism_shift.value or 0.0) if part.organism_shift else 0.0)
    control = most.control_shift
    beside = (
        f"the same of the control {signed(control.value)} {interval(control)}" if control else "no control was given"
    )
    chosen = f"the largest of {len(parts)} parts, chosen by what is shown"
    what = f"What {most.part} adds to the shift of the margin, nats per token"
    return [FurtherRow(source, what, estimate_entry(most.organism_shift, signed, "none"), (beside, chosen))]


def _patch(source: Further) -> list[FurtherRow]:
    found: PatchView = source.record
    rows = []
    for way in found.ways:
        if way.not_restored is not None:
            figure: Entry = missing(way.not_restored)
            rows.append(
                FurtherRow(source, f"Patching {way.way}: share of the shift restored", figure, (way.not_restored,))
            )
        for one in (one for one in way.correlation or [] if one.hook_point == "all"):
            figure = estimate_entry(one.spearman, number, "too few cells")
            what = f"Patching {way.way}: rank correlation of the first-order screen with exact patches"
            rows.append(FurtherRow(source, what, figure, (f"{one.n_cells} cells",)))
    return rows


def _weights(source: Further) -> list[FurtherRow]:
    found: WeightsView = source.record
    rows = []
    if found.organism.along is not None:
        rows.append(_beside(source, "Share of the update along the direction", found.organism.along.share))
    if found.similarity is not None:
        like = found.similarity
        null = f"rows permuted {signed(like.permuted.low)} to {signed(like.permuted.high)}, p {like.p:.2g}"
        rows.append(
            FurtherRow(source, "Cosine of the organism's and the control's update", Entry(signed(like.cosine)), (null,))
        )
    for cell in (cell for cell in found.arithmetic.cells if cell.name in ARITHMETIC):
        kl = f"KL {number(cell.kl, 2)} nats on harmless prompts"
        figure = estimate_entry(cell.shift, signed, "none")
        rows.append(FurtherRow(source, f"Margin of base plus {cell.name}, nats per token", figure, (kl,)))
    return rows


def hundredths(value: float | None) -> str:
    return percent(value, 2)


def _sae(source: Further) -> list[FurtherRow]:
    found: SaeReport = source.record
    rows = [_sae_row(source, one, found.control) for one in found.saes]
    for one in found.agreement:
        what = f"Latents of seed {one.seed} found in seed {one.other} (cosine above {one.match:g})"
        beside = f"random dictionary {percent(one.random_share_matched)}"
        figure = Entry(percent(one.share_matched), (f"{one.n_matched} of {one.n_latents}",))
        rows.append(FurtherRow(source, what, figure, (beside,)))
    return rows


def _sae_row(source: Further, one: SaeFigures, control: SaeFigures | None) -> FurtherRow:
    spliced = one.spliced
    back = (
        []
        if spliced is None
        else [f"cross-entropy recovered {number(spliced.recovered.value)} {interval(spliced.recovered, number)}"]
    )
    beside = (
        f"PCA with {one.pca_k} components {number(one.pca_fvu.value)}",
        f"random decoder {number(control.fvu.value)}" if control else "no random decoder was trained",
        f"dead {percent(one.dead_share)}",
        *back,
    )
    what = f"Variance that the SAE of seed {one.seed} misses ({one.n_latents} latents, {number(one.l0, 0)} active)"
    return FurtherRow(source, what, estimate_entry(one.fvu, number, "none"), beside)


def _difference_sae(source: Further) -> list[FurtherRow]:
    found: DifferenceSaeReport = source.record
    mean = f"share of the differences' mean square that is their mean {number(found.mean_share)}"
    rows = []
    for one in found.saes:
        row = _sae_row(source, one, None)
        what = f"Variance of organism minus base that the difference SAE of seed {one.seed} misses"
        rows.append(FurtherRow(source, what, row.figure, (row.beside[0], mean)))
    return rows


def _latents(source: Further) -> list[FurtherRow]:
    found: LatentsReport = source.record
    page = None if found.page is None else f"../{Path(source.file).with_name(Path(found.page).name).as_posix()}"
    return [
        FurtherRow(
            source,
            f"Latents that differ, {one.first} against {one.second} (false discovery rate {one.rate:g})",
            Entry(
                f"{one.n_rising + one.n_falling} of {one.n_tested}",
                (f"{one.n_replicated} replicate on other questions",),
            ),
            _latent_nulls(one),
            page,
        )
        for one in found.comparisons
    ]


def _latent_nulls(one: LatentComparison) -> tuple[str, ...]:
    swapped = f"models swapped: mean {number(one.swapped.mean, 1)}, 95 % below {number(one.swapped.high, 0)}, p {one.swapped.p:.2g}"
    seeds = (
        "no second seed was given"
        if one.seeds is None
        else f"two seeds of one finetune: {one.seeds.n_found} of {one.seeds.n_tested}"
    )
    return (swapped, seeds)


def _detect(source: Further) -> list[FurtherRow]:
    found: MonitorReport = source.record
    caught, alarms = found.true_positives, found.false_positives
    figure = Entry(
        percent(caught.value), (f"{caught.n_flagged} of {caught.n} [{percent(caught.low)}, {percent(caught.high)}]",)
    )
    beside = (
        f"aligned answers {percent(alarms.value)} ({alarms.n_flagged} of {alarms.n})",
        f"AUROC of the largest score {number(found.auroc)}, of the length {number(found.auroc_of_length)}",
    )
    return [
        FurtherRow(
            source,
            f"Misaligned answers that the monitor flags at {percent(found.threshold.rate)} promised false alarms",
            figure,
            beside,
        )
    ]


def _beside(source: Further, what: str, found: Beside) -> FurtherRow:
    """A share among control directions."""
    controls = tuple(
        f"{KIND_NAMES.get(kind, kind)} {_range(null, hundredths)}" for kind, null in found.controls.items()
    )
    return FurtherRow(source, what, Entry(hundredths(found.value)), controls or ("no control directions were drawn",))


def _range(null: NullRange, show: Callable[[float | None], str]) -> str:
    return f"{show(null.low)} to {show(null.high)} (p {null.p:.2g})"


KNOWN: dict[str, tuple[str, type[Any], Callable[[Further], list[FurtherRow]]]] = {
    "diff.json": ("diff", ModelDiff, _diff),
    "lens.json": ("lens", LensView, _lens),
    "patch.json": ("patch", PatchView, _patch),
    "weights.json": ("weights", WeightsView, _weights),
    "sae.json": ("sae", SaeReport, _sae),
    "difference_sae.json": ("difference-sae", DifferenceSaeReport, _difference_sae),
    "latents.json": ("latents", LatentsReport, _latents),
    "detect.json": ("detect", MonitorReport, _detect),
}
"""Name of a file -> the verb of `scripts/probe.py` that writes it, its record, and its rows."""
