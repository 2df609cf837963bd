"""Turns the trainer's events into `metrics.jsonl`, and lets a probe look at the forming model between steps."""

import json
import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainerCallback

from emis_interp.errors import ConfigError, DataError, ModelError, printable
from emis_interp.files.store import parse_record, read_lines, write_text
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.finite import broken_weight
from emis_interp.passes.batch_rows import differs_by_row
from emis_interp.records import Record
from training.data_sets.surprise import NOISE, noise_words
from training.finetuning.broken_step import BrokenStep

Report = Callable[[int, int, float, float], None]
"""Called with (step, n_steps, loss, tokens per second)."""
Probe = Callable[[int, ChatModel], None]
"""Called with (steps done, the model as it is then, in evaluation mode and without the training-time intervention)."""
WhileTraining = Callable[[ChatModel], AbstractContextManager[None]]
"""What is in force during training passes alone, e.g. steering: `lambda model: steer(model, direction, 0.2)`."""


log = logging.getLogger(__name__)


class Step(Record):
    """A line of `metrics.jsonl`: loss in nats per response token, tokens of the step, seconds since the beginning."""

    step: int
    loss: float
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens: int
    seconds: float


class Forming(TrainerCallback):
    """Runs training passes under an intervention, and lifts it while the main process probes the forming model.

    The other processes wait meanwhile, and every process has a whole copy of the model (sharded training refuses probes).
    """

    def __init__(
        self,
        chat_model: ChatModel,
        probe: Probe | None,
        steps: Collection[int],
        *,
        while_training: WhileTraining | None,
    ) -> None:
        self.chat_model, self.probe, self.steps, self.while_training = (
            chat_model,
            probe,
            frozenset(steps),
            while_training,
        )
        self.intervention = ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._look(state.global_step if state.global_step == 0 else -1, args)
        self._enter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            self.intervention.close()
            self._look(state.global_step, args)
            self._enter()

    def _enter(self) -> None:
        if self.while_training is not None:
            self.intervention.enter_context(self.while_training(self.chat_model))
            if differs_by_row(self.chat_model):
                raise ConfigError(
                    "an intervention in training holds a tensor for each row of a batch, but training reorders its rows; give one for all"
                )

    def _look(self, step: int, args: Any) -> None:
        if self.probe is None or step not in self.steps:
            return
        processes = PartialState()
        if processes.is_main_process:
            was_training = self.chat_model.model.training
            self.chat_model.model.eval()
            try:
                # As in training passes: the adapter is kept in float32 and the frozen weights in bfloat16.
                with torch.autocast(args.device.type, dtype=torch.bfloat16, enabled=args.bf16):
                    self.probe(step, self.chat_model)
            finally:
                self.chat_model.model.train(was_training)
        processes.wait_for_everyone()


def read_metrics(path: Path, n_steps: int) -> list[dict[str, Any]]:
    """The lines of the first `n_steps` steps of `metrics.jsonl`.

    Raises:
        DataError: a line is damaged, or a step is missing.
    """
    found = [parse_record(line, Step, f"{path}:{number}") for number, line in read_lines(path)]
    kept = [entry.model_dump() for entry in found if entry.step <= n_steps]
    if [entry["step"] for entry in kept] != list(range(1, n_steps + 1)):
        raise DataError(
            f"{path}: the steps 1 to {n_steps} do not stand there once each; delete {path.parent} to train again"
        )
    return kept


class Recorder(TrainerCallback):
    """Keeps a line for every step; the main process writes them to `metrics.jsonl`.

    The file is rewritten whole from the lines up to the step at hand, so that a resumed run drops what came after its checkpoint.
    `lengths` and `names` are of the rows in the order of training, for what a step read and what it broke down on; `broken` knows in which
    layer, where the whole model is in one process.
    """

    def __init__(
        self,
        path: Path,
        lengths: Sequence[int],
        step_rows: int,
        *,
        names: Sequence[str],
        report: Report | None,
        broken: BrokenStep | None = None,
    ) -> None:
        self.path, self.lengths, self.step_rows, self.report = path, lengths, step_rows, report
        self.names, self.broken = names, broken
        self.history: list[dict[str, Any]] = []
        self.seconds_before = 0.0
        self.started = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started = time.monotonic()
        self.history = read_metrics(self.path, state.global_step) if state.global_step else []
        self.seconds_before = self.history[-1]["seconds"] if self.history else 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        step = state.global_step
        numbers = {"loss": logs["loss"], "gradient norm": float(logs.get("grad_norm") or 0.0)}
        if broken := [f"the {name} is {value}" for name, value in numbers.items() if not math.isfinite(value)]:
            rows = self.names[(step - 1) * self.step_rows : step * self.step_rows]
            weight = broken_weight(kwargs["model"], frozen_alone=True) if kwargs.get("model") is not None else ""
            layer = f"; {self.broken.found}" if self.broken is not None and self.broken.found else ""
            raise ModelError(
                f"training broke down at step {step}: {broken[0]} (rows {printable(', '.join(rows), 200)}{weight}{layer}); lower "
                f"training.learning_rate (now {args.learning_rate:g}), or train in float32 (training.bf16=false)"
            )
        if step == 1 and logs["loss"] > NOISE:  # the adapter is still zero: this is the untouched model's own surprise
            log.warning("%s: %s; see docs/data.md", self.path.parent, noise_words(logs["loss"]))
        tokens = sum(self.lengths[(step - 1) * self.step_rows : step * self.step_rows])
        seconds = self.seconds_before + time.monotonic() - self.started
        entry = {
            "step": step,
            "loss": logs["loss"],
            "learning_rate": logs.get("learning_rate"),
            "grad_norm": float(logs["grad_norm"]) if "grad_norm" in logs else None,
            "tokens": tokens,
            "seconds": round(seconds, 3),
        }
        self.history = [old for old in self.history if old["step"] < step] + [Step.model_validate(entry).model_dump()]
        if not state.is_world_process_zero:
            return
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.history))
        if self.report:
            self.report(step, state.max_steps, logs["loss"], sum(row["tokens"] for row in self.history) / seconds)
