"""Turns answers into Scores by asking a local chat model, with the exact probability of every number 0-100 and of every label.

The judge prompt is read once; the token sequences that spell a number or a label (see `token_trie`) are continuations of it that share
its key-value cache. The rule from masses to a score is that of the API judge: Betley et al. 2025, mass of 0.25 (see `logprobs`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emis_interp.errors import DataError, JudgeError
from emis_interp.files.names import METRICS
from emis_interp.models.chat import context_of, render_prompt
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.models.finite import breakdown
from emis_interp.models.precision import AUTO
from emis_interp.models.spec import ModelSpec
from emis_interp.records import Completion, Question, Score
from evals.judges.judge import check_questions, why_unjudgeable
from evals.judges.logprobs import LABELS, LEAST_MASS, Verdict, read_distribution
from evals.judges.reply_masses import reply_masses
from evals.judges.token_trie import build_trie, token_texts
from evals.questions import render_judge_prompt

CHUNK = 16


class LocalJudge:
    """Scores completions with a chat model that runs here.

    An answer cannot close its own turn: control tokens written in it reach the judge as text (see `encode_as_text`).

    Attributes:
        name: goes into every Score.
        card: model, adapter, dtype and how replies are read, for the run's record.
    """

    together = CHUNK

    def __init__(self, chat_model: ChatModel, max_batch_tokens: int = 4096) -> None:
        self.chat_model, self.max_batch_tokens = chat_model, max_batch_tokens
        texts, byte_pieces = token_texts(chat_model.tokenizer)
        self.tries = {
            metric: build_trie(texts, LABELS if metric == "aligned" else (), byte_pieces) for metric in METRICS
        }
        dtype = chat_model.dtype
        adapter = str(chat_model.adapter) if chat_model.adapter else None
        self.name = f"local:{chat_model.name}{f'+{adapter}' if adapter else ''}:{dtype}"
        self.card: dict[str, Any] = {
            "kind": "local",
            "model": chat_model.name,
            "quantisation": chat_model.quantisation,
            "adapter": adapter,
            "dtype": dtype,
            "rendering": template_of(chat_model.tokenizer).card,
            "least_mass": LEAST_MASS,
            "reads": "exact mass of every integer 0-100 that no further digit follows, and of the labels; all tokenisations, "
            "one leading space allowed",
            "n_nodes": {metric: len(trie) for metric, trie in self.tries.items()},
        }

    @classmethod
    def load(cls, name: str, adapter: Path | None = None, dtype: str = AUTO, *, device: str = "auto") -> "LocalJudge":
        return cls(ModelSpec(name, adapter, dtype, device).load())

    def score(
        self,
        completions: Sequence[Completion],
        questions: Mapping[str, Question],
        on_batch: Callable[[list[Score]], None],
    ) -> None:
        """Judge completions in their order; what is empty, not Unicode or too long for the model stays unscored with that reason.

        Raises:
            JudgeError: before anything is judged, when a question is unknown or has no judge prompt of ours.
            ModelError: the judge's probabilities for an answer are not finite. To leave it out would choose answers by a number format.
        """
        check_questions(completions, questions)
        for start in range(0, len(completions), CHUNK):
            chunk = completions[start : start + CHUNK]
            judged = {metric: self._judge(chunk, questions, metric) for metric in METRICS}
            on_batch([_record(self.name, row, {m: judged[m][i] for m in METRICS}) for i, row in enumerate(chunk)])

    def _judge(
        self, rows: Sequence[Completion], questions: Mapping[str, Question], metric: str
    ) -> list[tuple[Verdict, dict[str, float]]]:
        """Verdict and evidence for every row."""
        prompts = [self._prompt(row, questions[row.question_id], metric) for row in rows]
        found = iter(self.distributions([prompt for prompt in prompts if not isinstance(prompt, str)], metric))
        judged = list[tuple[Verdict, dict[str, float]]]()
        for row, prompt in zip(rows, prompts, strict=True):
            if isinstance(prompt, str):
                judged.append((Verdict(reason=prompt), {}))
                continue
            masses = next(found)
            if not np.isfinite(list(masses.values())).all():
                text = f"answer {row.sample_index} to `{row.question_id}`, {row.arm},"
                raise breakdown(self.chat_model, prompt, text=text, what=f"the judge's probability ({metric})")
            judged.append((read_distribution(masses, LABELS if metric == "aligned" else ()), masses))
        return judged

    def _prompt(self, row: Completion, question: Question, metric: str) -> tuple[int, ...] | str:
        """Token ids of the judge prompt, or the reason why there is none."""
        if reason := why_unjudgeable(row.question, row.answer):
            return reason
        if metric not in question.judge_prompts:
            return f"the question has no judge prompt for `{metric}`"
        text = render_judge_prompt(question, metric, row.question, answer=row.answer)
        try:
            ids = encode_as_text(self.chat_model.tokenizer, text)
        except (JudgeError, DataError) as error:
            return str(error)
        limit = context_of(self.chat_model)
        if limit is not None and len(ids) + self.tries[metric].depths.max() > limit:
            return f"the judge prompt has {len(ids)} tokens, too many for a context of {limit}"
        return ids

    def distributions(self, prompts: Sequence[Sequence[int]], metric: str) -> list[dict[str, float]]:
        """Number or label -> probability (six significant digits) for prompts of token ids; what is missing to 1 is on other replies."""
        trie = self.tries[metric]
        masses = reply_masses(self.chat_model, trie, prompts, max_batch_tokens=self.max_batch_tokens)
        return [{name: float(f"{p:.6g}") for name, p in zip(trie.outcomes, row, strict=True)} for row in masses]


def encode_as_text(tokenizer: Any, content: str) -> tuple[int, ...]:
    """Token ids of one user turn up to and including the assistant header, in which `content` holds no control token.

    A control token that is written in the content (`<|im_end|>`) would end the user's turn and let an answer speak as the judge. The
    content is cut inside every such string and its parts are encoded one by one, which leaves the text as it is. Tokens that are not
    marked as special count too, since some families declare their role tokens that way; content without any is encoded as always.
    """
    rendered = render_prompt(tokenizer, content)
    controls = {token.content for token in tokenizer.added_tokens_decoder.values() if len(token.content.strip()) > 1}
    inside = sorted(control for control in controls if control in content)
    if not inside:
        return tuple(tokenizer(rendered, add_special_tokens=False)["input_ids"])
    before, found, after = rendered.partition(content.strip())
    if not found:
        raise JudgeError(
            "the chat template changes the judge prompt; its control tokens cannot be told from the answer's"
        )
    cut = "|".join(f"(?<={re.escape(control[:1])})(?={re.escape(control[1:])})" for control in inside)
    parts = [before, *re.split(cut, found), after]
    return tuple(id for part in parts if part for id in tokenizer(part, add_special_tokens=False)["input_ids"])


def _record(judge: str, row: Completion, found: Mapping[str, tuple[Verdict, dict[str, float]]]) -> Score:
    return Score.of(
        row,
        judge=judge,
        aligned=found["aligned"][0].score,
        coherent=found["coherent"][0].score,
        aligned_label=found["aligned"][0].label,
        unscored={metric: verdict.reason for metric, (verdict, _) in found.items() if verdict.reason},
        evidence={metric: masses for metric, (_, masses) in found.items() if masses},
    )
