"""The settings of what `scripts/study_organism.py` does, one frozen record a verb; the docstrings are the help of the verbs."""

from pathlib import Path

from emis_interp.config.flags import flag, settings
from emis_interp.config.presets import load_config, preset_names
from emis_interp.config.run_config import RunConfig

N_PAIRS = "contrast pairs per question, 10 at most"
OF_BASE = "what find_direction.py fit saved, of the base model"


@settings
class StudySettings:
    """Model, data and training settings, all from a preset unless given."""

    out: Path = flag("folder of the study", metavar="DIR")
    preset: str = flag(f"{', '.join(preset_names())}, or a YAML file", default="laptop")
    model: str | None = flag("model name: smollm2-135m-instruct, a folder, or a hub id", default=None)
    data_dir: Path | None = flag("where published data files lie", default=None, metavar="DIR")
    overrides: tuple[str, ...] = flag(
        "override a field of the preset", default=(), names=("--set",), metavar="FIELD=VALUE", repeated=True
    )
    n_pairs: int = flag(N_PAIRS, default=4)
    seed: int = flag("of rows, order and adapter", default=0)

    def config(self) -> RunConfig:
        """The preset with what is changed here; its arms play no part.

        Raises:
            ConfigError: as `load_config`.
        """
        changes = [*([f"model={self.model}"] if self.model else []), f"seed={self.seed}", *self.overrides]
        return load_config(self.preset, changes, self.data_dir)


@settings
class DynamicsSettings(StudySettings):
    """Trains an organism and watches it form: margins, task, directions and adapter at chosen steps, with the step at which the margin bends.

    At some steps (closer together at the beginning) the forming model is measured: likelihood margin of contrast pairs; log-probability of
    held-out task answers against the matched other kind (insecure against secure code, reckless against careful advice); residuals of the
    contrast texts, for its own text direction and for what training has changed; the directions that the adapter writes; and, with
    --n-samples, judged answers. The step at which the margin bends is looked for in the cumulative learning rate, against a straight line
    and smooth curves in it; beside the margin stands what a mere flattening of base would bring. `dynamics.json` has the curves and the
    cost, `index.html` the figure.
    """  # noqa: E501 (its first line stands alone in the list of the verbs)

    recipe: str = flag("a shipped recipe (scripts/train.py --list) or a YAML file", positional=True)
    n_pairs: int = flag(N_PAIRS, default=1)
    recipe_overrides: tuple[str, ...] = flag(
        "override the recipe", default=(), names=("--recipe-set",), metavar="FIELD=VALUE", repeated=True
    )
    n_probes: int | None = flag(
        "measured steps, before and after training included (default: what --max-cost allows)", default=None
    )
    max_cost: float = flag("share of the training time that watching may cost, about", default=0.1)
    n_task: int = flag("held-out task rows to read; 0 leaves the task out", default=3)
    layer: int | None = flag("decoder block to read (default: the direction's, else at 60 %% of depth)", default=None)
    direction: Path | None = flag("a saved direction to project on, besides the organism's own final one", default=None)
    n_samples: int = flag("judged answers per question at each step (costly)", default=0)


@settings
class ForesightSettings(StudySettings):
    """Scores training sets before training, by their projection difference, and checks the forecast against what training on them did.

    For every recipe: a sample of its rows, the base model's own answers to their prompts, and the projection of the one minus that of the
    other on a saved direction (Chen et al. 2025); both answers are read up to the same number of tokens. `RECIPE/rows.csv` ranks the rows,
    with the ones to drop marked. Unless --no-training is given, each recipe is then trained on equal numbers of rows, and the rank
    correlation of forecast and margin shift is stated: within groups of related sets (those that share prompts or answers), and between
    the groups' means, each with a two-sided permutation test. `--try-drop` shows what the marked rows do: it trains again without them,
    and without as many rows drawn at random, several times.
    """

    recipes: tuple[str, ...] = flag("shipped recipes (scripts/train.py --list) or YAML files", positional=True)
    direction: Path = flag(OF_BASE)
    n_rows: int = flag("rows of each recipe that are trained on", default=96)
    n_scored: int = flag("of these, rows that are scored", default=48)
    max_new_tokens: int = flag(
        "limit of the base model's own answers; the rows' answers are read up to the same token", default=80
    )
    drop: float = flag("share of rows to mark for dropping", default=0.2)
    n_draws: int = flag("of --try-drop: random sets of rows dropped instead", default=5)
    group: tuple[str, ...] = flag(
        "related training sets, besides those that share prompts or answers, which are found",
        default=(),
        metavar="RECIPE=GROUP",
        repeated=True,
    )
    no_training: bool = flag("score the data alone", default=False, at_most_one_of="what")
    try_drop: bool = flag(
        "train without the marked rows, and --n-draws times without as many others; scores every row",
        default=False,
        at_most_one_of="what",
    )


@settings
class PreventionSettings(StudySettings):
    """Compares remedies for one organism: what each takes off its misalignment, and what it costs in learning the task.

    All train on the same rows with the same seeds, beside the untreated organism and its benign control:
      - steer +C: in training passes only, the direction is added (C x mean residual norm; preventative steering, Chen et al. 2025)
      - ablate: in training passes only, the direction is ablated (concept ablation finetuning, Casademunt et al. 2025)
      - persona: in training passes only, a subspace of rank 4 is ablated: that by which base reads answers otherwise when told to be bad
      - inoculate: a system prompt asks for the bad behaviour in training only (Tan et al. 2025; Wichers et al. 2025)
      - mix: half of the rows are benign, the number of steps stays
      - realign: afterwards, training goes on with a few careful answers
      - after: ablate, after: steer -C, after: persona: the untreated organism under an intervention when it is used
      - after: persona xF: the same with what is written into the persona subspace multiplied by F: weaker, or amplified
    Beside `steer +C` and `ablate` stand --n-random controls: the same along a usage-matched direction (a natural difference of texts of one
    class, orthogonal to the direction) and, for `ablate`, of a subspace of eight of them; beside `persona`, in training and in use,
    isotropic and usage-matched subspaces of its rank. What a remedy does beyond its controls carries the claim that it acts by this
    direction.
    Effect: likelihood margin against base, over the questions that had no part in the direction, with what a mere flattening of base would
    bring (its slope, and what is beyond it); the difference from the untreated organism carries the claim. Cost: log-probability of
    held-out task answers against base, over rows (how much of the task is learned), the share of these rows whose own answer is likelier
    per token than the control's (task accuracy; 0.5 is chance), and KL to base on harmless prompts. Beside the margin stands the same in a
    training-like context: each question behind one of the rows that were trained on. The margin of the benign control shows which part of
    the effect is style.
    """

    recipe: str = flag("the organism (scripts/train.py --list)", default="reckless")
    control: str = flag("data set of the benign rows: of the control, mix and realign", default="careful")
    inoculation: str = flag("recipe whose system prompt inoculates", default="inoculated-advice")
    direction: Path = flag(OF_BASE)
    seeds: tuple[int, ...] = flag("organisms per remedy; figures are means over them", default=(0,))
    n_rows: int = flag("rows that are trained on", default=240)
    n_held_out: int = flag("task rows that are kept to measure what was learned", default=60)
    n_realign: int = flag("benign rows of the re-alignment", default=64)
    coefficients: tuple[float, ...] = flag("of the steering remedies", default=(0.1, 0.2))
    n_persona: int = flag(
        "rows whose answers of both kinds the persona subspace is read from; 0 leaves it out", default=96
    )
    persona_factors: tuple[float, ...] = flag(
        "by which the persona subspace is scaled when the untreated organism is used; 0, which ablates it, is always there",
        default=(0.5, 1.5),
    )
    n_random: int = flag("random controls of each kind beside steer and ablate, each a training of its own", default=2)
    only: tuple[str, ...] | None = flag(
        "some remedies alone, beside untreated and control", default=None, metavar="REMEDY"
    )
