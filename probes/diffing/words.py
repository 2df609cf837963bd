"""Turns what `probe.py diff` found into lines."""

from collections.abc import Iterator, Mapping
from typing import Any

from emis_interp.stats.permutation import NullP
from emis_interp.stats.words import bounds, estimate

N_SAID = 10
N_TERMS = 12


def say(result: dict[str, Any]) -> str:
    controls = ", ".join(result["controls"]) or "none"
    short = f", {result['n_short']} more were too short" if result["n_short"] else ""
    lines = [
        f"{result['model']} with {result['adapter']} against base; controls: {controls}",
        f"{result['n_texts']} unrelated plain texts, first {result['n_tokens']} tokens{short}; output of layer {result['layer']}, mean "
        f"residual norm {result['residual_norm']:.3g}",
        *_topics(result),
        "",
        f"tokens of the topic `{result['primary_topic']}` among the first 20 (*: primary; p of the others not corrected for their number)",
        *(line for row in result["readings"] for line in _reading(row)),
        "",
        *_positions(result),
        *_patchscope(result),
        *_components(result),
        "",
        *_logits(result),
        "",
        *_projection(result["projection"]),
        "",
        *_amplification(result["amplification"]),
    ]
    return "\n".join([*lines, f"saved: {result['out']}"])


def _topics(result: Mapping[str, Any]) -> Iterator[str]:
    for topic in result["topics"]:
        more = f" and {len(topic['terms']) - N_TERMS} more" if len(topic["terms"]) > N_TERMS else ""
        yield (
            f"topic `{topic['name']}` ({topic['source']}): {' '.join(topic['terms'][:N_TERMS])}{more}; "
            f"{100 * topic['vocabulary_share']:.2f} % of the vocabulary"
        )


def _reading(row: Mapping[str, Any]) -> Iterator[str]:
    count, *others = row["counts"]
    yield f"{'* ' if row['primary'] else '  '}{row['name']}: {_count(count)}"
    for other in others:
        yield f"      topic `{other['topic']}`: {_count(other)}"
    for arm, tokens in row["tokens"].items():
        yield f"      {arm}: {' '.join(map(repr, tokens[:N_SAID]))}"


def _count(row: Mapping[str, Any]) -> str:
    beside = [f"{name} {value}" for name, value in row["controls"].items()]
    beside += [
        f"{kind} {null['low']:.0f} to {null['high']:.0f}, {NullP(null['p'], null['p_n']).words('vectors')}"
        for kind, null in row["nulls"].items()
    ]
    return f"{row['count']} of {row['n_top']}" + (f" ({'; '.join(beside)})" if beside else "") + f": {row['verdict']}"


def _positions(result: Mapping[str, Any]) -> Iterator[str]:
    topic = result["primary_topic"]
    yield "mean difference by position (norm, of base's residual, consistency; topic tokens raised and lowered)"
    for row in result["positions"]:
        yield (
            f"  {row['arm']:12} {row['position']:>3}{row['norm']:>9.3g}{100 * row['relative_norm']:>7.2f} %{row['consistency']:>6.2f}"
            f"{row['top_counts'][topic]:>4}{row['bottom_counts'][topic]:>4}  {' '.join(map(repr, row['top_tokens'][:6]))}"
        )


def _patchscope(result: Mapping[str, Any]) -> Iterator[str]:
    for row in result["patchscope"]:
        yield f"patchscope, {row['arm']}: {row['scale']:g} residual norms, where prompts share {100 * row['agreement']:.0f} % of tokens"


def _components(result: Mapping[str, Any]) -> Iterator[str]:
    for row in result["components"]:
        null = row["shuffled"]
        shares = " ".join(f"{100 * share:.1f}" for share in row["shares"])
        yield (
            f"components, {row['arm']}: mean {100 * row['mean_share']:.1f} % of the squared length; of the rest {shares} %; first shuffled "
            f"{100 * null['low']:.1f} to {100 * null['high']:.1f} %, {NullP(null['p'], null['p_n']).words('shuffles')}"
        )


def _logits(result: Mapping[str, Any]) -> Iterator[str]:
    for row in result["logits"]:
        yield f"KL(base || {row['arm']}) per token of {row['n_texts']} {row['texts']} texts {estimate(row['kl'], '.4f')} nats"
    largest = next(row for row in result["logits"] if row["texts"] == "plain")["largest"]
    yield "  largest in the organism: " + ", ".join(
        f"{one['before']}[{one['token']}] {one['kl']:.2f}" for one in largest[:4]
    )
    for i, tokens in enumerate(result["nmf"], 1):
        yield f"  topic {i} of its rising logits: {' '.join(map(repr, tokens[:8]))}"


def _projection(row: Mapping[str, Any] | None) -> Iterator[str]:
    if row is None:
        yield "projection: not measured, since no --rows say what finetune-like text is"
        return
    before = row["before"]
    yield (
        f"difference taken out of the organism along a vector: change of cross-entropy, nats per token ({row['n_finetune_like']} "
        f"finetune-like texts, {row['n_unrelated']} unrelated; before {before['finetune_like']:.3f} and {before['unrelated']:.3f})"
    )
    for cell in row["cells"]:
        yield (
            f"  {cell['along']:18} finetune-like {estimate(cell['finetune_like'], '+.4f')}, unrelated "
            f"{estimate(cell['unrelated'], '+.4f')}, beyond {cell['beyond']:+.4f}"
        )
    for cell in row["cells"][1:-1]:
        yield f"    on finetune-like text, own direction minus that of {cell['along']}: {estimate(cell['first_minus'], '+.4f')}"
    for figure, nulls in row["nulls"].items():
        said = "; ".join(
            f"{kind} {null['low']:+.4f} to {null['high']:+.4f}, {NullP(null['p'], null['p_n']).words('vectors')}"
            for kind, null in nulls.items()
        )
        yield f"    {figure.replace('_', '-')} beside {said}"
    yield f"  {row['verdict']}"


def _amplification(row: Mapping[str, Any]) -> Iterator[str]:
    yield "adapters times a factor, against base (nats per token; cross-entropy on finetune-like and unrelated text)"
    for cell in row["cells"]:
        flat = cell["flattening"]
        beyond = "none" if flat is None or flat["beyond"] is None else estimate(flat["beyond"], "+.3f")
        yield (
            f"  {cell['arm']:12} x{cell['scale']:<5g} margin {cell['shift']['value']:+.3f}{bounds(cell['shift'], '+.3f')}, "
            f"beyond flattening {beyond}, KL {cell['kl']:.3f}, {estimate(cell['finetune_like'], '+.3f')} and "
            f"{estimate(cell['unrelated'], '+.3f')}, entropy {estimate(cell['entropy'], '+.3f')}"
        )
    for one in row["contrasts"]:
        yield (
            f"  organism minus {one['control']}, both x{one['scale']:g}: {one['value']:+.3f}{bounds(one, '+.3f')}, {one['n_positive']} of "
            f"{one['n_questions']} positive"
        )
    yield f"  {row['verdict']}"
