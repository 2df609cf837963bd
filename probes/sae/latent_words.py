"""How the verb about changed latents says its results: in lines, and in the cells of its page."""

from collections.abc import Mapping, Sequence
from typing import Any

from emis_interp.stats.permutation import NullP
from emis_interp.stats.words import estimate
from probes.sae.latent_scaling import shared_words

N_SAID, N_WORDS = 5, 4
COLUMNS = (
    "latent",
    "change on report questions",
    "q on selection questions",
    "two seeds differ by",
    "nu (error)",
    "nu (reconstruction)",
)
COLUMNS_BEHIND = ("cosine with the mean difference", "cosine with the direction", "seems to be")


def say(result: dict[str, Any]) -> str:
    fvu = ", ".join(f"{arm} {value:.3f}" for arm, value in result["fvu"].items())
    lines = [
        f"{result['n_latents']} latents at layer {result['layer']} of {result['model']}, {result['n_texts']} answers "
        f"({result['n_tokens']} tokens) of {result['texts']}; variance left unexplained: {fvu}",
    ]
    labels = {row["latent"]: row for row in result["labels"]}
    for comparison in result["comparisons"]:
        lines += ["", title(comparison), *comparison_lines(comparison)]
        for side in ("rises", "falls"):
            rows = [row for row in comparison["latents"] if row["side"] == side][:N_SAID]
            lines += [f"  {side}: {row_words(row)}{label_words(labels.get(row['latent']))}" for row in rows]
    lines += ["", *(effect_line(row) for row in result["effects"])] if result["effects"] else []
    return "\n".join([*lines, f"page: {result['page']}", f"saved: {result['out']}"])


def title(comparison: Mapping[str, Any]) -> str:
    return f"{comparison['first']} minus {comparison['second']}"


def comparison_lines(comparison: Mapping[str, Any]) -> list[str]:
    """What was found, what is found where nothing changed, and what the plain mean difference says."""
    swapped, plain, asked = comparison["swapped"], comparison["plain"], comparison["n_questions"]
    n_passed = comparison["n_rising"] + comparison["n_falling"]
    lines = [
        f"{n_passed} of {comparison['n_tested']} latents changed at a false discovery rate of {comparison['rate']:g} over "
        f"{asked['selection']} selection questions: {comparison['n_rising']} rising, {comparison['n_falling']} falling; on the "
        f"{asked['report']} report questions {comparison['n_replicated']} of them have the same sign and an interval off 0",
        f"models swapped within questions: {swapped['mean']:.1f} latents on average, up to {swapped['high']:.0f} (95th percentile), "
        f"{NullP(swapped['p'], swapped['p_n']).words('swaps')}" + (", all there are" if swapped["all_swaps"] else ""),
    ]
    if (seeds := comparison["seeds"]) is not None:
        lines.append(
            f"two seeds of one finetune: {seeds['n_found']} of {seeds['n_tested']} latents pass the same test; the largest change "
            f"moves the residual by {seeds['largest']:.3g}"
        )
    direction = (
        ""
        if plain["direction_cosine"] is None
        else f", with the misalignment direction {plain['direction_cosine']:+.3f}"
    )
    lines.append(
        f"plain mean difference: norm {plain['norm']:.3g} ({100 * plain['norm'] / plain['residual_norm']:.2g} % of a token's residual), "
        f"cosine of the two halves of the questions {plain['half_cosine']:+.3f}{direction}"
    )
    for row in plain["explained"]:
        null = (
            ""
            if row["random"] is None
            else f" (random latents {row['random']['mean']:.3f}, up to {row['random']['high']:.3f})"
        )
        lines.append(
            f"  {row['k']} latents: {row['span']:.3f} of it lies in their span{null}; the sum of their changes explains {row['summed']:.3f}"
        )
    if plain["all_summed"] is not None:
        lines.append(f"  all latents: the sum of their changes explains {plain['all_summed']:.3f}")
    nus = [{one["target"]: one["nu"]["value"] for one in row["nu"]} for row in comparison["latents"]]
    if nus:
        said = shared_words([row["error"] for row in nus], [row["reconstruction"] for row in nus])
        lines.append(f"latent scaling of those shown: {said}")
    return lines


def row_words(row: Mapping[str, Any]) -> str:
    """A latent in one line."""
    return (
        f"{row['latent']:>6} {estimate(row['report'], '+.3g')}, q {row['q']:.2g}{'' if row['passed'] else ' (did not pass)'}, nu "
        f"{nu_words(row, 'error')} / {nu_words(row, 'reconstruction')}, cosine with the mean difference {row['cosine_difference']:+.3f}"
        + ("" if row["cosine_direction"] is None else f", the direction {row['cosine_direction']:+.3f}")
    )


def nu_words(row: Mapping[str, Any], target: str) -> str:
    found = next(one["nu"] for one in row["nu"] if one["target"] == target)
    return "none" if found["value"] is None else f"{found['value']:.2f}"


def cells(row: Mapping[str, Any], label: Mapping[str, Any] | None) -> list[str]:
    """The cells of a row of the page's table, in the order of `COLUMNS` and `COLUMNS_BEHIND`."""
    gap = row["seed_gap"]
    return [
        f"{row['latent']} {row['side']}",
        estimate(row["report"], "+.3g"),
        f"{row['q']:.2g}" + ("" if row["passed"] else ", did not pass"),
        "not read" if gap is None else f"{estimate(gap, '+.3g')}; p {row['seed_p']:.2g}",
        *(nu_cell(row, target) for target in ("error", "reconstruction")),
        f"{row['cosine_difference']:+.3f} (p {row['cosine_difference_p']:.2g})",
        "not given"
        if row["cosine_direction"] is None
        else f"{row['cosine_direction']:+.3f} (p {row['cosine_direction_p']:.2g})",
        label_words(label).removeprefix("; ") or "not labelled",
    ]


def nu_cell(row: Mapping[str, Any], target: str) -> str:
    found = next(one for one in row["nu"] if one["target"] == target)
    return found["why_none"] or estimate(found["nu"], ".2f")


def label_words(label: Mapping[str, Any] | None) -> str:
    """`; 'harm' 'risk': AUROC 0.80 (0.70 to 0.90) on held-out text, p = 0.01 (200 shuffles)`."""
    if label is None:
        return ""
    if label["no_detection"] is not None:
        return f"; no label: {label['no_detection']}"
    terms = label["detections"][0]
    p = NullP(terms["null"]["p"], terms["null"]["p_n"]).words("shuffles")
    return f"; {words_of(terms['words'][:N_WORDS])}: AUROC {estimate(terms['auroc'], '.2f')} on held-out text, {p}"


def detection_words(one: Mapping[str, Any]) -> str:
    """Words with their score on held-out contexts."""
    null, within = one["null"], one["within"]
    return (
        f"{one['by']} {words_of(one['words'])}: AUROC {estimate(one['auroc'], '.2f')} on held-out text"
        + ("" if within is None else f", {estimate(within, '.2f')} within questions")
        + f", balanced accuracy {estimate(one['balanced_accuracy'], '.2f')}, {one['n_firing']} of {one['n_contexts']} contexts fire"
        + (
            ""
            if null is None
            else f"; shuffled labels {null['mean']:.2f}, {NullP(null['p'], null['p_n']).words('shuffles')}"
        )
    )


def words_of(words: Sequence[str]) -> str:
    return " ".join(map(repr, words)) or "(none)"


def effect_line(row: Mapping[str, Any]) -> str:
    return f"latent {row['latent']}, {effect_name(row)}: margin {estimate(row['shift'], '+.4f')} nats/token; {others_words(row)}"


def effect_name(row: Mapping[str, Any]) -> str:
    what = {"steer": f"steered by {row['coefficient']}", "ablate": "its direction ablated", "zero": "zeroed"}[
        row["kind"]
    ]
    return f"{what} in {row['arm']}"


def others_words(row: Mapping[str, Any]) -> str:
    null, p = row["others"], NullP(row["others"]["p"], row["others"]["p_n"])
    return f"others as active {null['mean']:+.4f} ({null['low']:+.4f} to {null['high']:+.4f}), {p.words('latents')}"
