"""The records of what `scripts/study_organism.py prevention` writes: what each remedy takes off an organism, and its cost."""

from pydantic import ConfigDict

from emis_interp.records import Record
from emis_interp.results import Estimate, FlatteningView


class RemedyShift(Estimate):
    """A difference of margins, nats per token, with its p-value; `p_holm`: corrected for the number of remedies, which alone have it."""

    model_config = ConfigDict(extra="forbid")

    p: float | None = None


class BeyondControls(RemedyShift):
    """The margin under a remedy minus the mean of `n_draws` random controls of one kind; the interval does not cover other draws. The same
    of the margin in context, of what is learned of the task, and of its accuracy, where they were measured."""

    n_draws: int
    context: Estimate | None = None
    task: Estimate | None = None
    task_accuracy: Estimate | None = None


class RemedyRow(Record):
    """An organism that was trained under a remedy, or a random control of one; margins and log-probabilities are nats per token.

    Attributes:
        control_of: the remedy that this one is a random control of.
        margin_shift: against base; negative: less misaligned than base.
        against_untreated: against the organism without a remedy, paired by question and seed; negative: the remedy takes some off.
        task_gain: log-probability of held-out task answers over base's; task_against_untreated: over the untreated organism's.
        task_accuracy: share of held-out rows whose own answer is likelier per token than the control's; None where none was chosen between.
        context_shift: `margin_shift` of the same questions behind a training row; None where no context was read.
        context_margins: of every question there, seed by seed.
        kl_neutral: KL(base || organism) of what comes next after harmless prompts, nats.
        margins: of every question, seed by seed.
        beyond_controls: by kind of control.
        flattening: None with fewer than 4 questions.
    """

    name: str
    untreated: bool
    control_of: str | None = None
    margin_shift: Estimate
    against_untreated: RemedyShift
    task_gain: Estimate
    task_against_untreated: Estimate
    task_accuracy: Estimate | None = None
    task_accuracy_against_untreated: Estimate | None = None
    context_shift: Estimate | None = None
    context_against_untreated: Estimate | None = None
    context_margins: list[dict[str, float] | None] = []
    kl_neutral: float
    margin_by_seed: list[float]
    margins: list[dict[str, float]]
    beyond_controls: dict[str, BeyondControls] = {}
    flattening: FlatteningView | None = None


class TaskAccuracy(Record):
    """The forced choice between held-out answers and those of the data set `control`; `base`: its own share, or None and `why_none`."""

    control: str
    chance: float
    base: Estimate | None = None
    n_held_out: int
    why_none: str | None = None


class PersonaFigures(Record):
    """The persona subspace: its rank, the share of the domains' mean differences (squares) in it, and answers read by domain."""

    rank: int
    share: float
    answers: dict[str, int]


class PreventionStudy(Record):
    """What the study found (prevention.json); `layer`: of the direction, residual stream behind this block. `context_unread`: why there is
    no margin in training-like contexts; `task_accuracy`: None in files of before it was measured."""

    recipe: str
    model: str
    n_seeds: int
    layer: int
    persona: PersonaFigures | None = None
    base_margins: dict[str, float]
    base_context_margins: list[dict[str, float] | None] = []
    context_unread: str | None = None
    task_accuracy: TaskAccuracy | None = None
    rows: list[RemedyRow]
