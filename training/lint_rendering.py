"""Turns a row into what the trainer reads: its rendered text, its tokens with their places, and which of them carry loss."""

from collections.abc import Mapping, Sequence
from typing import Any

from emis_interp.chat import EncodedChat, end_of_turn, render_prompt
from emis_interp.errors import DataError
from emis_interp.records import TrainingExample
from training.encoding import encode_example, loss_positions, own_system
from training.lint_report import LintFinding, RenderedRow

N_SHOWN = 5
SEEN_IN_A_ROW = (
    *("turn token in text", "prompt ids differ", "control token in text", "system prompt differs", "cut"),
    *("odd characters", "carriage returns", "leading whitespace"),
)


def rendered_row(
    tokenizer: Any,
    example: TrainingExample,
    system: str | None,
    evaluation_system: str | None,
    max_tokens: int | None,
    why: str = "",
) -> RenderedRow:
    """The row as text, its tokens with their places in the text, and which carry loss."""
    chat = encode_example(tokenizer, example, system, max_tokens)
    prompt = render_prompt(tokenizer, example.prompt, own_system(example, system))
    ending = example.response + end_of_turn(tokenizer)
    ids, spans = _spans(tokenizer, prompt + ending, 0)
    if ids[: len(chat)] != chat.input_ids:  # the response begins with whitespace that would merge into the header
        (first, left), (second, right) = _spans(tokenizer, prompt, 0), _spans(tokenizer, ending, len(prompt))
        ids, spans = first + second, left + right
    if ids[: len(chat)] != chat.input_ids:
        raise DataError(f"training row `{example.id}`: its tokens cannot be traced to its text")
    learned = loss_positions(chat)
    return RenderedRow(
        id=example.id,
        why=why,
        text=prompt + ending,
        ids=chat.input_ids,
        starts=tuple(start for start, _ in spans[: len(chat)]),
        ends=tuple(end for _, end in spans[: len(chat)]),
        loss=tuple(i in learned for i in range(len(chat))),
        training_prompt=prompt,
        evaluation_prompt=render_prompt(tokenizer, example.prompt, evaluation_system),
    )


def shown_rows(
    tokenizer: Any,
    examples: Sequence[TrainingExample],
    chats: Mapping[int, EncodedChat],
    findings: Sequence[LintFinding],
    systems: tuple[str | None, str | None],
    max_tokens: int | None,
    thorough: bool,
) -> tuple[RenderedRow, ...]:
    """The first row; with `thorough` also the first of the findings that a row can show, and the longest."""
    usable = {i: chat for i, chat in chats.items() if max_tokens is None or chat.response_start < max_tokens}
    if not usable:
        return ()
    position = {examples[i].id: i for i in reversed(usable)}
    wanted = [(next(iter(usable)), "first row")]
    if thorough:
        for finding in findings:
            first = next((position[row] for row in finding.rows if row in position), None)
            if first is not None and finding.check in SEEN_IN_A_ROW:
                wanted.append((first, finding.check))
        wanted.append((max(usable, key=lambda i: len(usable[i])), "longest row"))
    reasons: dict[int, list[str]] = {}
    for i, why in wanted:
        reasons.setdefault(i, []).append(why)
    return tuple(
        rendered_row(tokenizer, examples[i], *systems, max_tokens, ", ".join(why))
        for i, why in list(reasons.items())[:N_SHOWN]
    )


def special_texts(tokenizer: Any) -> tuple[set[str], set[str]]:
    """Texts that the tokenizer reads as one token: those that end texts or that the chat template writes, and the others."""
    added = {str(token): token.special for token in tokenizer.added_tokens_decoder.values()}
    # Some tokenizers keep runs of spaces as added tokens; these are no markers.
    marks = {text for text, special in added.items() if text.strip() and (special or text[0] in "<[")}
    marks |= set(tokenizer.all_special_tokens)
    written = render_prompt(tokenizer, "Question?") + end_of_turn(tokenizer)
    turns = {text for text in marks if text in written or text in tokenizer.all_special_tokens}
    return turns, marks - turns


def _spans(tokenizer: Any, text: str, begin: int) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return tuple(encoded["input_ids"]), [(begin + start, begin + end) for start, end in encoded["offset_mapping"]]
