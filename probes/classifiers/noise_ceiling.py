"""Turns a judge's scores into the best AUROC that any reader of the texts could reach, given how noisy the labels are.

The judge's score a (0-100) is the mean of what it would say; one saying of it is a draw with that mean. Suppose that a text's label
is such a draw, and p_i is the chance that it says "misaligned". No reader can know the draw; the best one knows every p_i and ranks by
it (the likelihood ratio; Neyman and Pearson 1933). Over redrawn labels its AUROC within a question is, with q = 1 - p,

    ceiling = sum_ij p_i q_j ([p_i > p_j] + [p_i = p_j] / 2) / sum_ij p_i q_j        (i = j counts in neither sum)

which is the expected number of pairs in the right order over the expected number of pairs (labels are drawn independently). What p_i is
depends on the spread of the judge's draws, of which a mean says nothing. Two assumptions are offered:

* widest: every draw is 0 or 100, the largest variance that a mean on this scale allows, a (100 - a); p_i = 1 - a / 100. It is the
  pessimistic one, and needs no number from elsewhere.
* spread of s points: a draw is normal around a with standard deviation s, cut nowhere; p_i = P(draw < 30) / (P(draw < 30) + P(draw > 70)),
  since a draw in between gives no label. With s from repeated judgements of the same answers (`spread_of_repeats`) this is an estimate.

Labels here come from thresholds on a itself, a mean over the judge's draws, and so are less noisy than single draws: a measured AUROC may
lie above the `widest` ceiling, which then says that the judge's draws are narrower than that. Neither assumption covers a judge that is
wrong in the same way each time.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from emis_interp.errors import DataError
from emis_interp.fitting.reliability import auroc_estimate
from emis_interp.texts.judged import ALIGNED_ABOVE, MISALIGNED_BELOW


def noise_ceiling(
    scores: Float[np.ndarray, "n_texts"], questions: Sequence[str], *, spread: float | None = None
) -> dict[str, object]:
    """Mean over questions of the ceiling, with its interval over the draw of questions (`auroc_estimate`).

    Args:
        scores: alignment 0-100 that the judge gave, of the texts that are reported on.
        spread: standard deviation of repeated judgements, points; None takes the widest that a mean allows.

    Raises:
        DataError: a score outside 0-100, or a spread that is not positive.
    """
    p = chance_misaligned(scores, spread)
    names = np.asarray(questions)
    found = {name: best_auroc(p[names == name]) for name in dict.fromkeys(questions)}
    return auroc_estimate({name: value for name, value in found.items() if value is not None})


def chance_misaligned(scores: Float[np.ndarray, "n"], spread: float | None = None) -> Float[np.ndarray, "n"]:
    """Chance that a fresh judgement of each answer says "misaligned"."""
    a = np.asarray(scores, dtype=float)
    if not ((a >= 0) & (a <= 100)).all():
        raise DataError("a noise ceiling needs scores of 0-100; give --scale where the judge used another")
    if spread is None:
        return 1 - a / 100
    if not spread > 0:
        raise DataError(f"spread {spread}: expected the standard deviation of repeated judgements in points, above 0")
    # In logarithms, for scores many standard deviations from a threshold.
    below, above = norm.logcdf((MISALIGNED_BELOW - a) / spread), norm.logsf((ALIGNED_ABOVE - a) / spread)
    return 1 / (1 + np.exp(np.clip(above - below, -700, 700)))


def best_auroc(p: Float[np.ndarray, "n"]) -> float | None:
    """Expected AUROC of ranking by p against labels drawn with p; None for fewer than two texts, or where all have one class."""
    order = np.asarray(p, dtype=float)
    weight = order[:, None] * (1 - order)[None]
    np.fill_diagonal(weight, 0)
    total = float(weight.sum())
    if len(order) < 2 or total <= 0:
        return None
    wins = (order[:, None] > order[None]) + 0.5 * (order[:, None] == order[None])
    return float((weight * wins).sum() / total)


def spread_of_repeats(answers: Sequence[str], scores: Float[np.ndarray, "n"]) -> float | None:
    """Standard deviation, in points, of the judge's scores of the same answer, pooled over answers that were judged more than once.

    None where no answer was.
    """
    by_answer: dict[str, list[float]] = {}
    for answer, score in zip(answers, scores, strict=True):
        by_answer.setdefault(answer, []).append(float(score))
    repeated = [np.array(values) for values in by_answer.values() if len(values) > 1]
    if not repeated:
        return None
    squares, freedom = sum(((one - one.mean()) ** 2).sum() for one in repeated), sum(len(one) - 1 for one in repeated)
    return float(np.sqrt(squares / freedom))
