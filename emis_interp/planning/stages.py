"""Turns a run's configuration into the work of every stage, and that into the seconds by which the time left is told.

What one package counts and another needs is handed over by the script: training, evals and probes each have a module of counts (`planned`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from emis_interp.config.run_config import ModelConfig, RunConfig
from emis_interp.config.run_texts import contrast_pairs
from emis_interp.models.chat_formats import with_examples
from emis_interp.models.embedded import EMBEDDED_NAME
from emis_interp.models.loading import load_tokenizer
from emis_interp.planning.calibrate import kept_calibration
from emis_interp.planning.rates import MachineRates, StatedDevice, stated_rates
from emis_interp.planning.shape import BYTES, ModelShape, shape_of
from emis_interp.planning.work import StageWork, Work
from emis_interp.records import ContrastPair, Question, TrainingExample

CPU = StatedDevice(
    name="two CPU cores",
    source="fitted to the stage times of two finished runs of the laptop preset (tests/emis_interp/planning/test_stages.py)",
    tflops=0.17,
    gb_per_s=28,
    memory_gib=16,
    reached=0.5,
    parallel=1,
)
"""What a run is taken to be on, as far as its stages are weighed against each other, where nobody has measured its machine."""
TRAINED = 2.9
"""What the arithmetic of training takes there over that of reading: short batches, and two moments for each weight."""
LEAST_S = 2.0
"""A stage of which no work is counted: it reads files, or waits for a server."""
LOADED_GB_PER_S, MERGED_GB_PER_S = 0.5, 0.15
"""Weights loaded as they are, and with an adapter folded in, on such a machine."""
CALL_S = 0.1
"""A request to a judge behind an API, of which several are under way at a time."""


class Arms(Protocol):
    """`training.arms.RunArms`, as far as counting asks it."""

    @property
    def config(self) -> RunConfig: ...

    def rows(self, model: ModelConfig) -> list[TrainingExample]: ...


@dataclass(frozen=True)
class Counters:
    """The modules `training.planned`, `evals.arms.planned` and `probes.stages.planned`."""

    trained: Any
    asked: Any
    read: Any


def stage_works(
    arms: Arms, questions: Sequence[Question], counters: Counters, *, shape: ModelShape, counter: str
) -> list[StageWork]:
    """The work of every stage of the pipeline, in their order.

    Args:
        counter: name of the model whose tokenizer counts.
    """
    config, trained, asked, read = arms.config, counters.trained, counters.asked, counters.read
    tokenizer = load_tokenizer(counter, config.chat_format)
    pairs: list[ContrastPair] = contrast_pairs(config)

    def tokenizers(model: ModelConfig) -> Any:
        return tokenizer if model.arm.in_context is None else with_examples(tokenizer, arms.rows(model))

    prompts = asked.encoded(asked.planned_answers(config, questions), tokenizer)
    answers = [len(prompt) + config.sampling.max_new_tokens for prompt in prompts]
    return [
        trained.train_work(arms, tokenizer, shape),
        trained.check_work(arms, tokenizer, tokenizers),
        asked.sample_work(config, questions, tokenizers),
        asked.score_work(config, questions, tokenizer),
        read.likelihood_work(config, pairs, tokenizers),
        read.choices_work(config, tokenizers),
        read.capture_work(config, pairs, tokenizers, answers=answers, shape=shape),
        read.direction_work(),
        read.intervene_work(config, pairs, tokenizers, cell=partial(asked.cell_work, config, questions)),
        read.probe_work(config, tokenizers, answers=answers, benign=trained.benign_texts()),
        StageWork("report", Work(), left_out="everything: it reads files, and takes seconds"),
    ]


def expected_seconds(
    arms: Arms, questions: Callable[[], Sequence[Question]], counters: Counters, *, todo: Sequence[str]
) -> dict[str, float]:
    """Stage -> seconds, by which the time left is told (`emis_interp.progress`); their ratios count, their level is the run's own.

    The rates are those that `scripts/plan.py` measured on this machine for this model, where it did, else those of `CPU`.

    Args:
        todo: stages that will be made; of fewer than two nothing is counted, since counting takes seconds, and the result is empty.
    """
    if len(todo) < 2:
        return {}
    config, shape, kept = arms.config, shape_of(arms.config.model), kept_calibration(arms.config)
    works = stage_works(arms, questions(), counters, shape=shape, counter=config.model)
    # The embedded model may have to be fetched, which a run that does not ask the offline judge never does.
    judge = shape_of(EMBEDDED_NAME) if any(one.work.judged for one in works) else shape
    rates = cpu_rates(shape, config, judge=judge) if kept is None else kept.rates
    return {one.stage: LEAST_S + rates.alone(one.work) + CALL_S * one.work.usage.calls for one in works}


def cpu_rates(shape: ModelShape, config: RunConfig, *, judge: ModelShape) -> MachineRates:
    """The rates of `CPU`, loading and the slowness of training included."""
    n_gb = BYTES["float32"] * shape.n_parameters / 1e9
    stated = stated_rates(CPU, shape, config, judge=judge)
    return replace(stated, trained=TRAINED * stated.trained, load=n_gb / LOADED_GB_PER_S, merge=n_gb / MERGED_GB_PER_S)
