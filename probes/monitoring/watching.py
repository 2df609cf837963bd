"""Turns a scorer into a score for every token that a model reads or writes, while it does so.

    with Monitor(scorer).watch(chat_model) as seen:
        answers = generate(chat_model, prompts, seeds, 128, 1.0)
    seen[3].answer  # the scores of the tokens of answer 3

Two forward hooks, as interventions have them. The residual is read behind every edit of its layer, also one that came into force later.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from emis_interp.errors import ModelError
from emis_interp.models.chat import EncodedChat, end_tokens
from emis_interp.models.chat_model import ChatModel
from emis_interp.passes.batch_rows import PassRows, RowFollower
from emis_interp.passes.capture import capture_batches
from emis_interp.process import Bars, no_bars
from probes.monitoring.scorers import TokenScorer, check_scorer

Scores = Float[np.ndarray, " n_tokens"]
OnScores = Callable[[list[int], list[float]], None]
"""Called after every pass with the texts in it and the score of the last token of each."""


@dataclass(frozen=True)
class TextScores:
    """The scores of one text, float64.

    Attributes:
        call: number of the call (of `generate`, of a sampler) that the text belongs to; `row` its place in what that call was given.
        prompt: of every token of the prompt, the last of which is read before the model acts; None where its pass was not watched.
        answer: of the tokens that were written and read again. The token that ended the answer is none of them, nor is the last token of
            an answer that was cut at the limit: the model never read it.
    """

    call: int
    row: int
    prompt: Scores | None
    answer: Scores


@dataclass(frozen=True)
class _Pass:
    """Scores of one forward pass, as the device gave them."""

    begins: bool
    rows: PassRows
    scores: Float[Tensor, "batch position"]
    real: Bool[Tensor, "batch position"]


@dataclass
class Seen(Sequence[TextScores]):
    """What a monitor saw: one entry for each text, call after call, within a call in the order in which its texts were given."""

    passes: list[_Pass] = field(default_factory=list)
    _read: tuple[int, list[TextScores]] = (0, [])

    @property
    def texts(self) -> list[TextScores]:
        if self._read[0] != len(self.passes):
            self._read = len(self.passes), _assembled(self.passes)
        return self._read[1]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: Any) -> Any:
        return self.texts[index]


@dataclass(frozen=True)
class Monitor:
    """Scores every token that a model reads.

    Attributes:
        on_scores: told of every pass as it happens; an exception that it raises ends the generation. Without it nothing waits for the
            device.
    """

    scorer: TokenScorer
    on_scores: OnScores | None = None

    @contextlib.contextmanager
    def watch(self, chat_model: ChatModel) -> Iterator[Seen]:
        """Watch the block; what was seen stays readable afterwards, also when the block fails.

        It works with `generate` and the samplers on it, with transformers' `generate`, and with passes over whole texts (whose tokens are
        all prompt). Padding is never scored.

        Raises:
            ModelError: the scorer is of another model, or a pass holds one text twice (a sweep of interventions in one batch).
        """
        check_scorer(self.scorer, chat_model)
        seen = Seen()
        block: Any = chat_model.layers[self.scorer.layer]
        reader = _Reader(self.scorer, seen, self.on_scores, ends=sorted(end_tokens(chat_model)))
        place = block.register_forward_hook(reader.read)
        reader.stay_last = lambda: block._forward_hooks.move_to_end(place.id)
        handles = [place, chat_model.body.register_forward_pre_hook(reader, with_kwargs=True)]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def score_chats(
    scorer: TokenScorer,
    chat_model: ChatModel,
    chats: Sequence[EncodedChat],
    *,
    max_batch_tokens: int = 2048,
    bars: Bars = no_bars,
    name: str = "score",
) -> list[TextScores]:
    """The scores of finished texts from one pass over each, no further than the scorer's layer; `prompt` holds the last token alone.

    Raises:
        ModelError: the scorer is of another model.
    """
    check_scorer(scorer, chat_model)
    found: dict[int, Scores] = {}
    runs = capture_batches(
        chat_model,
        chats,
        [scorer.layer],
        position=lambda chat: range(chat.response_start - 1, chat.response_end),
        reduce_for=lambda _: scorer.score,
        max_batch_tokens=max_batch_tokens,
    )
    with bars(name, len(chats)) as advance:
        for rows, counts, [scores] in runs:
            parts = scores.detach().double().cpu().split(counts)
            found.update({row: part.numpy() for row, part in zip(rows, parts, strict=True)})
            advance(len(rows))
    return [TextScores(0, i, found[i][:1], found[i][1:]) for i in range(len(chats))]


@dataclass
class _Reader:
    """The two hooks: before the body, which tokens are coming; behind the block, their scores."""

    scorer: TokenScorer
    seen: Seen
    on_scores: OnScores | None
    ends: Sequence[int]
    follower: RowFollower = field(default_factory=RowFollower)
    stay_last: Callable[[], None] = lambda: None
    _begins: bool = True
    _real: Tensor = field(default_factory=lambda: torch.empty(0))

    def __call__(self, module: torch.nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.stay_last()
        past, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        self._begins = past is None or int(past.get_seq_length()) == 0
        ids = kwargs.get("input_ids", inputs[0] if inputs else None)
        like = kwargs["inputs_embeds"][..., 0] if ids is None else ids
        if mask is not None and (not isinstance(mask, Tensor) or mask.ndim != 2):
            raise ModelError(
                "the monitor cannot tell padding from tokens: this pass has no attention mask of [batch, position]; use `generate` of "
                "emis_interp.passes, or a cache that grows (no cache_implementation)"
            )
        real = torch.ones_like(like, dtype=torch.bool) if mask is None else mask[:, -like.shape[1] :].bool()
        if self.follower.now is None and not self._begins and like.shape[1] == 1 and ids is not None:
            for end in self.ends:  # transformers' own loop goes on behind the end of a row
                real = real & (ids != end)
        self._real = real

    def read(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        residuals = output[0] if isinstance(output, tuple) else output
        scores, batch = self.scorer.score(residuals.detach()), residuals.shape[0]
        rows = self.follower.now or PassRows(torch.arange(batch), batch)
        if len(rows.rows) != batch:
            raise ModelError(
                f"a pass of {batch} rows for {len(rows.rows)} texts; the monitor cannot tell whose they are"
            )
        self.seen.passes.append(_Pass(self._begins, rows, scores, self._real))
        if self.on_scores is not None:
            last = [self._real.shape[1] - 1 - int(row.flip(0).int().argmax()) for row in self._real]
            self.on_scores(rows.rows.tolist(), [float(scores[i, place]) for i, place in enumerate(last)])


@dataclass
class _Growing:
    prompt: Scores | None
    answer: list[float] = field(default_factory=list)
    ended: bool = False


def _assembled(passes: Sequence[_Pass]) -> list[TextScores]:
    """Passes as texts. A pass that begins a text which its call has already had is another call's."""
    calls: list[dict[int, _Growing]] = []
    of = -1
    for one in passes:
        scores, real = one.scores.detach().double().cpu().numpy(), one.real.cpu().numpy()
        rows: list[int] = one.rows.rows.tolist()
        if len(set(rows)) != len(rows):
            raise ModelError(
                "a pass holds one text several times (a sweep of interventions?); watch one intervention at a time"
            )
        if one.begins:
            sharing = one.rows.sharing
            begun = (
                dict(zip(*(part.tolist() for part in sharing), strict=True))
                if sharing
                else {r: i for i, r in enumerate(rows)}
            )
            if not calls or one.rows.of != of or not begun.keys().isdisjoint(calls[-1]):
                calls.append({})
            of = one.rows.of
            calls[-1].update({text: _Growing(scores[i][real[i]]) for text, i in begun.items()})
            continue
        if not calls:
            calls.append({})
            of = one.rows.of
        for i, row in enumerate(rows):
            text = calls[-1].setdefault(row, _Growing(None))
            text.ended = text.ended or not real[i].any()
            if not text.ended:
                text.answer += scores[i][real[i]].tolist()
    return [
        TextScores(number, row, call[row].prompt, np.array(call[row].answer))
        for number, call in enumerate(calls)
        for row in sorted(call)
    ]
