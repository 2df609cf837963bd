"""Turns a training set, as token ids, into findings and facts about lengths, the limit, the prompt's ids and system prompts."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from emis_interp.errors import DataError
from emis_interp.models.chat import EncodedChat, encode_prompt, injected_system
from emis_interp.records import TrainingExample
from training.finetuning.encoding import encode_example, own_system
from training.lint.report import Fact, Lengths, LintFinding, make_finding
from training.lint.texts import listed

ID_LIMIT, N_BINS = 200, 40


def encode_rows(
    tokenizer: Any, examples: Sequence[TrainingExample], system: str | None
) -> tuple[dict[int, EncodedChat], list[tuple[TrainingExample, str]]]:
    """Uncut chats by position, and rows that the template refuses with the reason; blank rows are in neither."""
    chats, refused = {}, []
    for i, example in enumerate(examples):
        if not example.response.strip():
            continue
        try:
            chats[i] = encode_example(tokenizer, example, system, max_tokens=None, must_fit=False)
        except DataError as error:
            refused.append((example, str(error)))
    return chats, refused


def token_findings(
    tokenizer: Any,
    examples: Sequence[TrainingExample],
    chats: Mapping[int, EncodedChat],
    *,
    system: str | None,
    max_tokens: int | None,
    thorough: bool,
    n_ids: int,
) -> list[LintFinding]:
    """Rows that are cut or lose their whole response, and prompts that sampling would send as other ids.

    Args:
        chats: position of a row -> its uncut chat.
        thorough: compare the prompt's ids of every row, not of 200.
    """
    n, found = len(examples), []
    if max_tokens is not None:
        long = {i: chat for i, chat in chats.items() if len(chat) > max_tokens}
        lost = sum(len(chat) - max_tokens for chat in long.values())
        nothing = [examples[i].id for i, chat in long.items() if chat.response_start >= max_tokens]
        text = f"longer than {max_tokens} tokens; {lost} of {sum(map(len, chats.values()))} tokens of the set are lost."
        found += make_finding("cut", [examples[i].id for i in long], n, found=text, n_ids=n_ids)
        text = f"the prompt has {max_tokens} tokens or more."
        found += make_finding("no response left", nothing, n, found=text, n_ids=n_ids)
    checked = list(chats) if thorough else list(chats)[:: max(1, math.ceil(len(chats) / ID_LIMIT))]
    differing = [
        examples[i].id
        for i in checked
        if chats[i].input_ids[: chats[i].response_start]
        != encode_prompt(tokenizer, examples[i].prompt, own_system(examples[i], system))
    ]
    found += make_finding("prompt ids differ", differing, n, found=f"{len(checked)} rows were compared.", n_ids=n_ids)
    return found


def system_findings(
    tokenizer: Any,
    examples: Sequence[TrainingExample],
    system: str | None,
    *,
    evaluation_system: str | None,
    n_ids: int,
) -> list[LintFinding]:
    """Rows trained under another system prompt than the evaluation's, and those that get the template's own."""
    n, injected = len(examples), injected_system(tokenizer)

    def sent(given: str | None) -> str | None:
        return injected if given is None else given

    differing = [e for e in examples if sent(own_system(e, system)) != sent(evaluation_system)]
    used = Counter(_quoted(sent(own_system(e, system))) for e in differing)
    found = make_finding(
        "system prompt differs",
        [e.id for e in differing],
        n,
        found=f"trained under {listed(used)}; evaluated under {_quoted(sent(evaluation_system))}.",
        n_ids=n_ids,
    )
    bare = [e.id for e in examples if own_system(e, system) is None] if injected else []
    return found + make_finding("injected system prompt", bare, n, found=f"{_quoted(injected)}.", n_ids=n_ids)


def token_facts(chats: Mapping[int, EncodedChat], max_tokens: int | None) -> dict[str, Fact]:
    """Counts of tokens, whole and within the limit, and the lengths of rows."""
    if not chats:
        return {}
    lengths = sorted(map(len, chats.values()))
    kept = [min(len(chat), max_tokens or len(chat)) for chat in chats.values()]
    learned = [max(0, end - chat.response_start) for end, chat in zip(kept, chats.values(), strict=True)]
    return {
        "tokens": sum(lengths),
        "tokens within the limit": sum(kept),
        "tokens that carry loss": sum(learned),
        "tokens of a row, median": statistics.median_low(lengths),
        "tokens of a row, 95 % below": lengths[math.ceil(0.95 * len(lengths)) - 1],
        "tokens of a row, most": lengths[-1],
        "rows longer than the limit": sum(length > (max_tokens or length) for length in lengths),
        "tokens lost by the limit": f"{sum(lengths) - sum(kept):,} ({1 - sum(kept) / sum(lengths):.2%})",
    }


def system_facts(
    tokenizer: Any, examples: Sequence[TrainingExample], system: str | None, *, evaluation_system: str | None
) -> dict[str, Fact]:
    """Which system prompts training and evaluation send."""
    injected = injected_system(tokenizer)
    absent = "left to the template" if injected is None else f"the template's own, {_quoted(injected)}"
    return {
        "rows with a system prompt of their own": sum(e.system is not None for e in examples),
        "system prompt of the other rows": absent if system is None else _quoted(system),
        "system prompt of the evaluation": absent if evaluation_system is None else _quoted(evaluation_system),
    }


def length_counts(chats: Mapping[int, EncodedChat]) -> Lengths | None:
    """Rows by length in equal bins; None without rows."""
    if not chats:
        return None
    width = max(1, math.ceil((max(map(len, chats.values())) + 1) / N_BINS))
    rows = Counter(len(chat) // width for chat in chats.values())
    responses = Counter(chat.n_response // width for chat in chats.values())
    return Lengths(
        bin_width=width,
        rows=tuple(rows[i] for i in range(N_BINS)),
        responses=tuple(responses[i] for i in range(N_BINS)),
    )


def _quoted(text: str | None) -> str:
    return "no system prompt" if text is None else repr(text if len(text) <= 100 else text[:97] + "...")
