"""Turns questions into a file of an arm's answers, sampled by any sampler and resumed to the same file.

Every answer has its own random numbers, fixed by (run seed, arm, question, paraphrase, index). Beside the file lies its card: how the
answers were sampled. Answers are added to a file only when they are sampled in the way that its card tells.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import StageError
from emis_interp.files.journal import Journal
from emis_interp.files.rows import by_key
from emis_interp.files.store import RecordLog, card_path, read_object, write_json
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.rendering import both
from emis_interp.records import Completion, Question
from evals.samplers import AnswerSampler, Key
from evals.samplers.hf import HFSampler

Progress = Callable[[int, int], None]
"""Called with (answers, new tokens) just finished."""
FREE_TO_CHANGE = ("batch_size", "sampler.adapter", "sampler.quantisation")
"""Entries of a card that are recorded but may differ when a file is continued (another folder for the same adapter; files of a version that
did not say how the weights were quantised)."""


@dataclass(frozen=True)
class Sampled:
    """Answers in plan order, and for every answer that could not be had the reason why; the same call asks for those again."""

    answers: list[Completion]
    missing: dict[Key, str]


class SamplingOptions(TypedDict, total=False):
    """What `sample_with` may be told besides, with its defaults."""

    seed: int
    system: str | None
    progress: Progress | None


def sample_arm(
    chat_model: ChatModel,
    arm: str,
    questions: Sequence[Question],
    config: SamplingConfig,
    path: Path,
    **options: Unpack[SamplingOptions],
) -> list[Completion]:
    """`sample_with` for a loaded HF model, which leaves no answer missing."""
    return sample_with(HFSampler(chat_model), arm, questions, config=config, path=path, **options).answers


def sample_with(
    sampler: AnswerSampler,
    arm: str,
    questions: Sequence[Question],
    config: SamplingConfig,
    path: Path,
    *,
    seed: int = 0,
    system: str | None = None,
    progress: Progress | None = None,
) -> Sampled:
    """Sample every (question, paraphrase, index) that `path` does not hold yet.

    Args:
        system: the run's system prompt policy; a question's own system prompt goes before it.

    Raises:
        StageError: the file holds answers that this plan does not ask for (another question file or seed), or that were sampled with
            other settings.
    """
    plan = plan_prompts(arm, questions, config.samples_per_paraphrase, seed=seed, system=system)
    log = RecordLog(path)
    done = by_key(log.read(Completion), path)
    planned = {completion.key: completion for completion in plan}
    strange = [key for key, completion in done.items() if not _same_prompt(completion, planned.get(key))]
    if strange:
        raise StageError(
            f"{path}: {len(strange)} answers were asked with other questions, seed or system prompt (first: {strange[0]}); "
            "sample into a new file or folder, or delete this one to sample again"
        )
    card: dict[str, Any] = {
        "arm": arm,
        "seed": seed,
        "system": system,
        "temperature": config.temperature,
        "max_new_tokens": config.max_new_tokens,
        "batch_size": config.batch_size,
    }
    if all(item.key in done for item in plan):
        _check_card(card_path(path), card)
        return Sampled([done[item.key] for item in plan], {})
    card["sampler"] = sampler.card
    _check_card(card_path(path), card)
    n_before = len(done)
    answers = Journal(log, done.values(), lambda completion: completion.key)

    def keep(batch: list[Completion]) -> None:
        if not card_path(path).exists():
            # Answers without a card are from elsewhere: the card must not vouch for them.
            write_json(card_path(path), card | ({"n_answers_before_this_card": n_before} if n_before else {}))
        answers.keep(batch)
        if progress:
            progress(len(batch), sum(completion.n_tokens for completion in batch))

    missing = sampler.sample(plan, frozenset(done), config, on_batch=keep)
    return Sampled([answers.done[item.key] for item in plan if item.key in answers.done], missing)


def _check_card(where: Path, card: Mapping[str, Any]) -> None:
    """Check that the card of an old file, if there is one, says the same."""
    if not where.exists():
        return
    old, new = _flat(read_object(where)), _flat(card)
    gone = [key for key in old if key.startswith("sampler.") and "sampler.kind" in new and key not in new]
    changed = [key for key in (*new, *gone) if key not in FREE_TO_CHANGE and old.get(key) != new.get(key)]
    if changed:
        what = "; ".join("{} was {}, now {}".format(key, *_shown(old.get(key), new.get(key))) for key in changed[:3])
        raise StageError(
            f"{where.with_suffix('.jsonl')}: its answers were sampled with other settings ({what}); sample into a new file, "
            f"or delete this one and {where.name}"
        )


def _shown(old: Any, new: Any) -> tuple[str, str]:
    """Two values for a message; long texts around the place where they differ."""
    return both(old, new) if isinstance(old, str) and isinstance(new, str) else (repr(old), repr(new))


def _flat(card: Mapping[str, Any]) -> dict[str, Any]:
    flat = {}
    for key, value in card.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": item for inner, item in _flat(value).items()}
        else:
            flat[key] = value
    return flat


def plan_prompts(
    arm: str, questions: Sequence[Question], samples_per_paraphrase: int | None, *, seed: int, system: str | None = None
) -> list[Completion]:
    """The completions to be filled in, in a fixed order, with their seeds."""
    return list(AnswerPlan(arm, questions, samples_per_paraphrase, seed=seed, system=system))


class AnswerPlan(Sequence[Completion]):
    """What `plan_prompts` lists, made when it is asked for: a million answers are planned in no memory.

    Attributes:
        wordings: question, its paraphrase's number, and where its answers begin in the plan.
    """

    def __init__(
        self,
        arm: str,
        questions: Sequence[Question],
        samples_per_paraphrase: int | None,
        *,
        seed: int,
        system: str | None = None,
    ) -> None:
        self.arm, self.seed, self.system = arm, seed, system
        self.wordings: list[tuple[Question, int, int]] = []
        self._blocks: dict[tuple[str, int], range] = {}
        begin = 0
        for question in questions:
            for number in range(len(question.paraphrases)):
                end = begin + (samples_per_paraphrase or question.samples_per_paraphrase)
                self.wordings.append((question, number, begin))
                self._blocks[question.id, number] = range(begin, end)
                begin = end
        self._begins, self._n = [begin for _, _, begin in self.wordings], begin

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> Completion: ...
    @overload
    def __getitem__(self, index: slice) -> list[Completion]: ...
    def __getitem__(self, index: int | slice) -> Completion | list[Completion]:
        found = range(self._n)[index]
        return self._at(found) if isinstance(found, int) else [self._at(place) for place in found]

    def place_of(self, key: Key) -> int | None:
        """Where in the plan an answer is; None for one that is not planned."""
        arm, question_id, paraphrase, sample = key
        block = self._blocks.get((question_id, paraphrase), range(0))
        return block[sample] if arm == self.arm and 0 <= sample < len(block) else None

    def _at(self, place: int) -> Completion:
        question, p, begin = self.wordings[bisect_right(self._begins, place) - 1]
        s = place - begin
        return Completion(
            arm=self.arm,
            question_id=question.id,
            paraphrase_index=p,
            sample_index=s,
            seed=answer_seed(self.seed, self.arm, question.id, paraphrase_index=p, sample_index=s),
            system=question.system if question.system is not None else self.system,
            question=question.paraphrases[p],
            answer="",
            n_tokens=0,
            finish="length",
        )


def answer_seed(seed: int, arm: str, question_id: str, *, paraphrase_index: int, sample_index: int) -> int:
    """A 63-bit seed that depends on nothing but its arguments."""
    text = f"{seed}\x1f{arm}\x1f{question_id}\x1f{paraphrase_index}\x1f{sample_index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _same_prompt(done: Completion, planned: Completion | None) -> bool:
    return planned is not None and (done.seed, done.question, done.system) == (
        planned.seed,
        planned.question,
        planned.system,
    )
