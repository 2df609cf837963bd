"""Turns what `probe.py weights` found into lines."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from emis_interp.stats.permutation import NullP
from emis_interp.stats.words import bounds, estimate

N_LAYERS = 5
SHOWN = 12
"""Components in full; an adapter of rank 1 on every module has hundreds."""


def say(result: dict[str, Any]) -> str:
    lines = [
        f"{result['model']}, {result['n_pairs']} pairs of {result['n_questions']} report questions; margins in nats per token, positive: "
        "more misaligned, 95 % intervals over questions",
        f"base margin {estimate(result['base_margin'], '+.3f')}",
    ]
    for name in ("organism", "control"):
        if result.get(name) is not None:
            lines += ["", f"{name}: {result[name]['adapter']}", *_adapter(result[name], result["direction_layer"])]
    if result["similarity"] is not None:
        lines += ["", *_similarity(result["similarity"])]
    lines += ["", *_arithmetic(result["arithmetic"]), "", *_components(result["components"])]
    return "\n".join([*lines, f"saved: {result['out']}"])


def shift_words(row: Mapping[str, Any]) -> str:
    """`+0.024 (+0.002 to +0.046), 6 of 8 positive`."""
    return f"{row['value']:+.3f}{bounds(row, '+.3f')}, {row['n_positive']} of {row['n_questions']} positive"


def _adapter(view: Mapping[str, Any], direction_layer: int | None) -> Iterator[str]:
    yield f"  shift of the margin {shift_words(view['shift'])}; norm of the update {view['norm']:.3f}"
    yield f"  {'module':14}{'n':>4}{'norm':>9}{'of base':>10}{'stable rank':>13}{'effective':>11}"
    for row in view["by_module"]:
        yield (
            f"  {row['name']:14}{row['n_modules']:>4}{row['norm']:>9.3f}{100 * row['relative_norm']:>8.2f} %{row['stable_rank']:>13.2f}"
            f"{row['effective_rank']:>11.2f}"
        )
    heavy = sorted(view["by_layer"], key=lambda row: -row["norm"])[:N_LAYERS]
    yield "  heaviest layers: " + ", ".join(f"{row['name']} ({row['norm']:.3f})" for row in heavy)
    if view["along"] is not None:
        yield from _along(view["along"], direction_layer)
    if view["switched"]:
        yield f"  {'part':22}{'switched off':>46}{'alone, against base':>46}"
        for row in view["switched"]:
            yield f"  {row['name']:22}{shift_words(row['off']):>46}{shift_words(row['alone']):>46}"


def _along(row: Mapping[str, Any], layer: int | None) -> Iterator[str]:
    share, written = row["share"], row["written"]
    yield f"  along the direction (of layer {layer}): {100 * share['value']:.3f} % of the update, isotropic {100 / row['d_model']:.3f} %"
    yield from _beside(share, scale=100, form=".3f")
    yield f"  cosine of the mean write with it {written['value']:+.3f} (norm of the write {row['written_norm']:.3g})"
    yield from _beside(written, scale=1, form="+.3f")


def _beside(row: Mapping[str, Any], *, scale: float, form: str) -> Iterator[str]:
    for kind, null in row["controls"].items():
        low, high = (format(scale * null[side], form) for side in ("low", "high"))
        yield f"    {kind}: {low} to {high}, {NullP(null['p'], null['p_n']).words('controls')}"


def _similarity(row: Mapping[str, Any]) -> Iterator[str]:
    null = row["permuted"]
    yield (
        f"cosine of the two updates {row['cosine']:+.3f}; with rows of B permuted {null['low']:+.3f} to {null['high']:+.3f}, "
        f"{NullP(row['p'], row['p_n']).words('permuted adapters')}; norm of the control's {row['norm_ratio']:.2f} of the organism's"
    )
    if row["read_cosine"] is not None:
        yield f"  cosine of their A matrices {row['read_cosine']:+.3f}"
    yield "  by module: " + ", ".join(f"{name} {value:+.2f}" for name, value in row["by_module"].items())


def _arithmetic(row: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'base plus':26}{'shift of the margin':>42}{'slope on base':>24}{'beyond flattening':>27}{'KL, nats':>10}"
    for cell in row["cells"]:
        flat = cell["flattening"]
        slope = "none" if flat is None else estimate(flat["slope"], ".2f")
        beyond = "none" if flat is None or flat["beyond"] is None else estimate(flat["beyond"], "+.3f")
        yield f"{cell['name']:26}{shift_words(cell['shift']):>42}{slope:>24}{beyond:>27}{cell['kl']:>10.4f}"
    if "organism_against_control" in row:
        yield f"organism against control {shift_words(row['organism_against_control'])}"
        yield f"organism minus control, beyond the difference of the two shifts {estimate(row['beyond_sum'], '+.3f')}"


def _components(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The strongest ones in full, and how many of all tell the answers apart."""
    yield "strongest components (misaligned minus aligned answers in standard deviations of the firing over tokens)"
    for row in rows[:SHOWN]:
        cosine = "" if row["write_cosine"] is None else f", cosine with the direction {row['write_cosine']:+.3f}"
        yield (
            f"  layer {row['layer']} {row['module']}: singular value {row['singular_value']:.3f}, {100 * row['share']:.0f} % of its "
            f"update; fires {row['mean_firing']:+.2f} +- {row['std_firing']:.2f}; misaligned minus aligned "
            f"{estimate(row['misaligned_minus_aligned'], '+.2f')}{cosine}"
        )
        if row["top_tokens"]:
            yield f"    writes {_quoted(row['top_tokens'])}; against {_quoted(row['bottom_tokens'])}"
        yield "    fires on " + ", ".join(f"{one['before']}[{one['token']}]".strip() for one in row["fires_on"][:4])
    known = [row["misaligned_minus_aligned"] for row in rows if row["misaligned_minus_aligned"]["low"] is not None]
    apart = sum(one["low"] > 0 or one["high"] < 0 for one in known)
    more = f"; {len(rows) - SHOWN} more are in the file" if len(rows) > SHOWN else ""
    yield f"of {len(known)} components {apart} have an interval off 0, {0.05 * len(known):.1f} are expected by chance{more}"


def _quoted(tokens: Sequence[str]) -> str:
    return " ".join(repr(token) for token in tokens[:6])
