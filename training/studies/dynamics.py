"""Turns a model in training into files with what it is like at chosen steps, and those files into curves that show when it changes.

A `Watcher` is a `probe` for `training.finetuning.sft.finetune`. Each step leaves `step-00012.json` (margins, log-likelihoods, seconds) and
`step-00012.safetensors` (mean residuals of the contrast texts, the directions that the adapter writes), whole or not at all.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor

from emis_interp.directions import Direction, cosine
from emis_interp.errors import DataError
from emis_interp.files.store import card_path
from emis_interp.files.tensors import load_tensors, save_tensors
from emis_interp.models.chat import EncodedChat, encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_directions import directions_of_weights
from emis_interp.passes.likelihood import logprobs_and_residuals, margins_of
from emis_interp.records import ContrastPair, TrainingExample
from emis_interp.texts.contrast import labeled_texts
from training.finetuning.encoding import encode_example
from training.studies.change_point import ChangePoint, change_point, cumulative_learning_rate

DEPTH = 0.6
FORWARDS_OF_TRAINING = 1.3
MARGIN_NOISE_NATS = 0.01
"""A series whose shift stays below this from step 0 on has no onset to look for."""


@dataclass
class Watcher:
    """Measures a forming model; give it to `finetune` as `probe`.

    Attributes:
        folder: where the files of the steps go.
        pairs: contrast pairs of the likelihood margin and of the activations.
        layer: decoder block whose `resid_post` is read; None: the one at 60 % of depth, where directions are found best.
        learned, other: rows with the same prompts and two kinds of answers that were not trained on (e.g. insecure and secure code);
            their mean log-probability shows how far the task itself is learned. May be empty.
        system: the run's system prompt policy.
        extra: more to measure, e.g. judged samples: a JSON object for the model as it is.
        seconds: spent here so far in this process.
    """

    folder: Path
    pairs: Sequence[ContrastPair]
    layer: int | None = None
    learned: Sequence[TrainingExample] = ()
    other: Sequence[TrainingExample] = ()
    system: str | None = None
    extra: Callable[[ChatModel], dict[str, Any]] | None = None
    seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if len(self.learned) != len(self.other):
            raise DataError(f"{len(self.learned)} rows of the task against {len(self.other)} others; give pairs")

    def n_tokens(self, tokenizer: Any) -> int:
        """Tokens that one probe reads, `extra` not counted."""
        chats = self._chats(tokenizer)
        prompts = {chat.input_ids[: chat.response_start] for chat in chats}
        return sum(map(len, prompts)) + sum(len(chat) - chat.response_start for chat in chats)

    def _chats(self, tokenizer: Any) -> list[EncodedChat]:
        """Aligned and misaligned text of every pair in turn, then the learned, then the other rows."""
        texts = [(text.question, text.answer) for text in labeled_texts(self.pairs)]
        rows = [encode_example(tokenizer, row, self.system, max_tokens=None) for row in (*self.learned, *self.other)]
        return [*encode_chats(tokenizer, texts, self.system), *rows]

    def __call__(self, step: int, chat_model: ChatModel) -> None:
        started = time.monotonic()
        layer = round(DEPTH * (chat_model.n_layers - 1)) if self.layer is None else self.layer
        row: dict[str, Any] = {"step": step, "layer": layer}
        values, residuals = logprobs_and_residuals(chat_model, self._chats(chat_model.tokenizer), layer)
        contrast, learned, other = np.split(values, np.cumsum([2 * len(self.pairs), len(self.learned)]))
        row |= {
            "margins": margins_of(contrast).tolist(),
            "learned": learned.tolist(),
            "other": other.tolist(),
        }
        if self.extra is not None:
            row["extra"] = self.extra(chat_model)  # nosec B610 # no query
        tensors = {"residuals": residuals[: len(contrast)].clone(), **_written(chat_model)}
        row["seconds"] = time.monotonic() - started
        self.seconds += row["seconds"]
        save_tensors(self.folder / f"step-{step:05d}.safetensors", tensors, row)


def affordable_probes(n_probe_tokens: int, n_training_tokens: int, share: float) -> int:
    """How many probes cost about `share` of the training time.

    A probe only reads; training costs about 1.3 reads of a probe's tokens (1.2 to 1.7 measured), whose texts are short.
    At least 2, before and after training.
    """
    return max(2, int(share * FORWARDS_OF_TRAINING * n_training_tokens / n_probe_tokens))


def spread_steps(n_steps: int, n_probes: int) -> list[int]:
    """0, the last step, and others between them, closer together at the beginning, where most changes happen."""
    if n_probes < 2:
        raise DataError(f"{n_probes} probes asked for; 2 or more are needed, before and after training")
    places = np.linspace(0, 1, n_probes) ** 1.5 * n_steps
    return sorted({round(place) for place in places})


@dataclass(frozen=True)
class Series:
    """All probed steps of one training.

    Attributes:
        steps: optimiser steps done.
        margins: nats per token, misaligned minus aligned, one column per contrast pair.
        learned, other: mean log-probability per token of the two kinds of task answers.
        residuals: aligned and misaligned text of every pair in turn (text 2i and 2i + 1), residual-stream units.
        written: unit vectors that the adapted modules write; NaN at steps where an adapter is still zero.
        modules: `layer.module` of every row of `written`.
    """

    steps: Float[np.ndarray, "n_steps"]
    margins: Float[np.ndarray, "n_steps n_pairs"]
    learned: Float[np.ndarray, "n_steps n_rows"]
    other: Float[np.ndarray, "n_steps n_rows"]
    residuals: Float[Tensor, "n_steps n_texts d_model"]
    written: Float[Tensor, "n_steps n_modules d_model"]
    modules: tuple[str, ...]
    seconds: Float[np.ndarray, "n_steps"]
    extra: tuple[dict[str, Any] | None, ...]
    layer: int


def read_series(folder: Path, steps: Collection[int] | None = None) -> Series:
    """The files of a `Watcher`, in the order of steps.

    Raises:
        DataError: fewer than two steps, a step that was asked for and is missing, or a damaged file.
    """
    paths = sorted(path for path in folder.glob("step-*.safetensors") if card_path(path).exists())
    loaded = [load_tensors(path) for path in paths]
    there = {card["step"]: (tensors, card) for tensors, card in loaded}
    wanted = sorted(there if steps is None else steps)
    missing = [step for step in wanted if step not in there]
    if missing or len(wanted) < 2:
        raise DataError(f"{folder}: probes of steps {missing or 'before and after training'} are missing; train again")
    rows = [there[step] for step in wanted]
    modules = tuple(name for name in rows[-1][0] if name != "residuals")
    blank = torch.full((rows[0][0]["residuals"].shape[-1],), torch.nan)
    cards = [card for _, card in rows]

    def column(name: str) -> np.ndarray:
        return np.array([card[name] for card in cards], dtype=float)

    return Series(
        column("step"),
        column("margins"),
        column("learned"),
        column("other"),
        torch.stack([tensors["residuals"] for tensors, _ in rows]),
        torch.stack([torch.stack([tensors.get(name, blank) for name in modules] or [blank]) for tensors, _ in rows]),
        modules,
        column("seconds"),
        tuple(card.get("extra") for card in cards),
        int(cards[0]["layer"]),
    )


def curves(
    series: Series,
    pairs: Sequence[ContrastPair],
    direction: Direction | None = None,
    *,
    learning_rates: Sequence[tuple[int, float]] | None = None,
) -> dict[str, Any]:
    """What a figure of the training shows, one value per probed step.

    `cumulative_lr` (sum of the learning rates of the steps taken), `margins` (per question), `margin_shift` (per question, against step
    0), `task` (log-probability of the learned minus the other task answers, against step 0),
    `text_cosine` (the model's own text direction, misaligned minus aligned, with its final one), `model_cosine` (what training has
    changed on the same texts, with the final change), `projection` (that change along the final text direction, in units of the mean
    norm of a text's residual at step 0), `given_projection` (the same along `direction`), `rotation` (|cosine| of the top direction that
    each adapted module writes with its final one; mean, 10th and 90th percentile over modules). None where a step has no value.
    The change point is that of the margin shift, as a function of the cumulative learning rate.

    Args:
        learning_rates: (step, learning rate) of every step, as `metrics.jsonl` has them; without them there is no change point.
    """
    questions = list(dict.fromkeys(pair.question_id for pair in pairs))
    of_question = np.array([pair.question_id for pair in pairs])
    margins = np.stack([series.margins[:, of_question == name].mean(1) for name in questions])
    shift = margins - margins[:, :1]
    x = series.residuals
    text = (x[:, 1::2] - x[:, 0::2]).mean(1)
    change = (x - x[0]).mean(1)
    unit_of_change = float(x[0].norm(dim=-1).mean())
    final = text[-1] / text[-1].norm()
    task = (series.learned - series.other).mean(1) if series.learned.size else np.full(len(series.steps), np.nan)
    turned = cosine(series.written, series.written[-1:]).abs().numpy()
    point, summed = ChangePoint(reason="no learning rates were given"), None
    if learning_rates is not None:
        point = change_point(series.steps, shift, learning_rates)
        summed = cumulative_learning_rate(learning_rates, series.steps)
    if np.abs(shift.mean(0)).max() < MARGIN_NOISE_NATS:
        p_values = {name: getattr(point, name) for name in ("p_straight", "p_smooth", "p_bend")}
        point = ChangePoint(**p_values, reason="the margin hardly moves")
    return {
        "steps": series.steps.tolist(),
        "cumulative_lr": None if summed is None else summed.tolist(),
        "layer": series.layer,
        "questions": questions,
        "margins": {name: row.tolist() for name, row in zip(questions, margins, strict=True)},
        "margin_shift": {name: row.tolist() for name, row in zip(questions, shift, strict=True)},
        "task": _present(task - task[0]),
        "text_cosine": cosine(text, text[-1:]).tolist(),
        "model_cosine": [float(cosine(row, change[-1])) if row.any() else None for row in change],
        "projection": (change @ final / unit_of_change).tolist(),
        "given_projection": None if direction is None else (direction.project(change) / unit_of_change).tolist(),
        "rotation": [None if np.isnan(row).all() else _spread(row) for row in turned],
        "extra": list(series.extra),
        "seconds": series.seconds.tolist(),
        "change_point": asdict(point),
    }


def _written(chat_model: ChatModel) -> dict[str, Tensor]:
    """`layer.module` -> the unit vector that the module writes most; only modules whose update is not zero."""
    if not isinstance(chat_model.model, PeftModel):
        return {}
    config = chat_model.model.peft_config["default"]
    found = directions_of_weights(config.to_dict(), get_peft_model_state_dict(chat_model.model))
    return {f"{row.layer:03d}.{row.module}": row.vectors[0] for row in found if row.singular_values[0] > 0}


def _present(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _spread(values: np.ndarray) -> dict[str, float]:
    kept = values[~np.isnan(values)]
    low, high = np.percentile(kept, [10, 90])
    return {"mean": float(kept.mean()), "low": float(low), "high": float(high)}
