"""Turns what `probe.py sae` and `probe.py measure-sae` found into lines."""

from collections.abc import Iterator
from typing import Any

from emis_interp.stats.words import estimate


def say(result: dict[str, Any]) -> str:
    kind = f"{result['kind']}, {result['expansion']} latents a dimension, k {result['k']}"
    lines = list(_head(result, f"output of layer {result['layer']} ({result['hook_name']}): {kind}"))
    for row in result["saes"]:
        lines += ["", f"seed {row['seed']} ({row['n_samples']} tokens, {row['n_epochs']:.1f} epochs)", *_figures(row)]
    if result["control"] is not None:
        lines += ["", "control: the decoder stays random, the encoder is trained as long", *_figures(result["control"])]
    if result["agreement"]:
        lines += ["", *(_agreement(row) for row in result["agreement"])]
    return "\n".join([*lines, f"saved: {result['out']}"])


def measured_words(result: dict[str, Any]) -> str:
    """Of SAEs that were there."""
    lines = list(_head(result, f"output of layer {result['layer']}"))
    for row in result["saes"]:
        of = f"{row['architecture']}, trained on {row['trained_on'] or 'a model that it does not name'}"
        lines += ["", f"{row['source']} ({of})", *_figures(row)]
    return "\n".join([*lines, f"saved: {result['out']}"])


def _head(result: dict[str, Any], what: str) -> Iterator[str]:
    tokens = result["tokens"]
    left_out = ", ".join(f"{count} {reason}" for reason, count in tokens["left_out"].items())
    adapter = f" with {result['adapter']}" if result["adapter"] else ""
    yield f"{result['model']}{adapter}, {what}"
    yield (
        f"{tokens['n_train']} tokens of {tokens['n_train_texts']} texts to train on, {tokens['n_held_out']} of "
        f"{tokens['n_held_out_questions']} questions held out; left out: {left_out}"
    )
    yield (
        f"cross-entropy of held-out answers {result['clean_cross_entropy']:.3f} nats a token; with the mean in the place of the residual "
        f"{result['mean_cross_entropy']:.3f}, with zeros {result['zero_cross_entropy']:.3f}"
    )
    yield "95 % intervals over held-out questions; FVU: share of the variance that is missed"


def _figures(row: dict[str, Any]) -> Iterator[str]:
    yield f"  FVU {estimate(row['fvu'])}; PCA with {row['pca_k']} components {estimate(row['pca_fvu'])}; L0 {row['l0']:.1f}"
    yield (
        f"  dead {row['n_dead']} of {row['n_latents']} latents ({100 * row['dead_share']:.1f} %) in {row['n_tokens_looked_at']} tokens; "
        f"{row['n_rare']} fire in fewer than 10"
    )
    spliced = row["spliced"]
    yield (
        f"  spliced in: {spliced['cross_entropy']:.3f} nats a token; recovered of the mean's loss {estimate(spliced['recovered'])}, of the "
        f"zeros' {estimate(spliced['recovered_from_zero'])}"
    )


def _agreement(row: dict[str, Any]) -> str:
    return (
        f"seed {row['seed']} in seed {row['other']}: {row['n_matched']} of {row['n_latents']} living latents "
        f"({100 * row['share_matched']:.1f} %) have one with a cosine above {row['match']}; mean best cosine "
        f"{row['mean_best_cosine']:.3f}, with a random dictionary {row['random_mean_best_cosine']:.3f}"
    )
