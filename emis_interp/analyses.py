"""Names the files of analysis/ and the record that each of them holds; the record of the probe stage is written down here."""

from emis_interp.probe_results import Beside, ExactRate, MonitorThreshold, ProbeSet, UpdateSimilarity
from emis_interp.results import (
    Choices,
    DirectionView,
    Interventions,
    Margins,
    OrganismChecks,
    Rates,
    View,
)


class MonitoredModel(View):
    """What the run's probe sees of one model while that model reads texts, at the threshold that base was calibrated for.

    Attributes:
        arm: name of the model (the arm's, with the seed where it has several).
        false_alarms: on shipped harmless texts, read by this model.
        flagged: of its own answers; None where it wrote none with a token.
        caught: of those of its answers that the run's judge calls misaligned and coherent; None where there are none, or no scores.
    """

    arm: str
    false_alarms: ExactRate
    flagged: ExactRate | None = None
    caught: ExactRate | None = None


class UpdateSummary(View):
    """An adapter as a whole: norm of its update, also as a share of that of the base weights there (mean over modules), and its ranks.

    Attributes:
        layer_norms: Frobenius norm of the update by decoder block.
        along: share of the squared norm of all that it can write which lies along the misalignment direction; 1 / d_model for an isotropic
            vector.
        reference, similarity: the contrast arm's model, and the cosine of both updates.
    """

    arm: str
    norm: float
    relative_norm: float
    rank: int
    stable_rank: float
    effective_rank: float
    layer_norms: dict[str, float]
    along: Beside | None = None
    reference: str | None = None
    similarity: UpdateSimilarity | None = None


class RunProbes(View):
    """What the probe stage of a run found.

    Attributes:
        classifier: readers of the contrast texts in base, each question tested by probes that did not see it.
        method, layer: of the probe that is saved in probes/ and watches the models.
        not_taken_apart: models without an adapter to take apart, with the reason.
    """

    classifier: ProbeSet
    method: str
    layer: int
    threshold: MonitorThreshold
    monitored: list[MonitoredModel]
    updates: list[UpdateSummary] = []
    not_taken_apart: dict[str, str] = {}


ANALYSES: dict[str, type[View]] = {
    "organisms": OrganismChecks,
    "rates": Rates,
    "margins": Margins,
    "choices": Choices,
    "direction": DirectionView,
    "interventions": Interventions,
    "probes": RunProbes,
}
"""Name of a file in analysis/ -> its record."""
