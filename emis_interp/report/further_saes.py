"""Turns SAEs, SAEs of differences and latents that differ into figures of the report, each beside what could explain it away."""

from emis_interp.latent_results import DifferenceSaeReport, LatentComparison, LatentsReport
from emis_interp.report.entries import Entry, estimate_entry
from emis_interp.report.further_parts import FurtherRow, Shown
from emis_interp.report.page_frame import without_machine_paths
from emis_interp.report.style import interval, number, percent
from emis_interp.sae_results import MeasuredSaes, SaeReport, SaeWorth


def trained_saes(found: SaeReport) -> Shown:
    control = f"random decoder {number(found.control.fvu.value)}" if found.control else "no random decoder was trained"
    rows = [_sae_row(f"the SAE of seed {one.seed}", one, (control,)) for one in found.saes]
    for one in found.agreement:
        what = f"Latents of seed {one.seed} found in seed {one.other} (cosine above {one.match:g})"
        beside = f"random dictionary {percent(one.random_share_matched)}"
        figure = Entry(percent(one.share_matched), (f"{one.n_matched} of {one.n_latents}",))
        rows.append(FurtherRow(what, figure, (beside,)))
    return Shown(rows)


def measured_saes(found: MeasuredSaes) -> Shown:
    rows = []
    for one in found.saes:
        trained = f"trained on {one.trained_on}" if one.trained_on else "it does not say which model it was trained on"
        where = f"read in {found.model} at layer {found.layer}"
        name = f"{without_machine_paths(one.source)} ({one.architecture})"
        rows.append(_sae_row(name, one, (f"{trained}, {where}", "no random decoder: it was not trained here")))
    return Shown(rows)


def difference_saes(found: DifferenceSaeReport) -> Shown:
    mean = f"share of the differences' mean square that is their mean {number(found.mean_share)}"
    return Shown(
        [
            FurtherRow(
                f"Variance of organism minus base that the difference SAE of seed {one.seed} misses",
                estimate_entry(one.fvu, number, "none"),
                (_pca(one), mean),
            )
            for one in found.saes
        ]
    )


def latents(found: LatentsReport) -> Shown:
    rows = [
        FurtherRow(
            f"Latents that differ, {one.first} against {one.second} (false discovery rate {one.rate:g})",
            Entry(
                f"{one.n_rising + one.n_falling} of {one.n_tested}",
                (f"{one.n_replicated} replicate on other questions",),
            ),
            _latent_nulls(one),
        )
        for one in found.comparisons
    ]
    return Shown(rows, page=found.page)


def _sae_row(name: str, one: SaeWorth, beside: tuple[str, ...]) -> FurtherRow:
    spliced = one.spliced
    back = (
        ()
        if spliced is None
        else (f"cross-entropy recovered {number(spliced.recovered.value)} {interval(spliced.recovered, number)}",)
    )
    what = f"Variance that {name} misses ({one.n_latents} latents, {number(one.l0, 0)} active)"
    figure = estimate_entry(one.fvu, number, "none")
    return FurtherRow(what, figure, (_pca(one), *beside, f"dead {percent(one.dead_share)}", *back))


def _pca(one: SaeWorth) -> str:
    return f"PCA with {one.pca_k} components {number(one.pca_fvu.value)}"


def _latent_nulls(one: LatentComparison) -> tuple[str, ...]:
    swapped = f"models swapped: mean {number(one.swapped.mean, 1)}, 95 % below {number(one.swapped.high, 0)}, p {one.swapped.p:.2g}"
    seeds = (
        "no second seed was given"
        if one.seeds is None
        else f"two seeds of one finetune: {one.seeds.n_found} of {one.seeds.n_tested}"
    )
    return (swapped, seeds)
