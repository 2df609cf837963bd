"""Turns a row into what the trainer reads: its rendered text, its tokens with their places, which of them carry loss, and what the chat
template alone would write.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from emis_interp.errors import DataError
from emis_interp.models.chat import EncodedChat, end_of_turn, render_prompt, tokens_of
from emis_interp.models.chat_template import template_of
from emis_interp.models.context import room
from emis_interp.models.rendering import render
from emis_interp.records import TrainingExample
from training.finetuning.encoding import encode_example, loss_positions, own_system, render_example
from training.lint.report import LintFinding, RenderedRow, make_finding

N_SHOWN = 5
SEEN_IN_A_ROW = (
    *("turn token in text", "prompt ids differ", "control token in text", "system prompt differs", "cut"),
    *("odd characters", "carriage returns", "leading whitespace"),
)


def rendered_row(
    tokenizer: Any,
    example: TrainingExample,
    system: str | None,
    *,
    evaluation_system: str | None,
    max_tokens: int | None,
    why: str = "",
) -> RenderedRow:
    """The row as text, its tokens with their places in the text, and which carry loss."""
    chat = encode_example(tokenizer, example, system, max_tokens=max_tokens, must_fit=False)
    rendered = render_example(tokenizer, example, system)
    ids, spans = tokens_of(tokenizer, rendered)
    if ids[: len(chat)] != chat.input_ids:
        raise DataError(f"training row `{example.id}`: its tokens cannot be traced to its text")
    learned, template, own = loss_positions(chat), template_of(tokenizer), own_system(example, system)
    asked, written = (
        template.messages(example.prompt, None, own),
        template.messages(example.prompt, example.response, own),
    )
    return RenderedRow(
        id=example.id,
        why=why,
        text=rendered.text,
        ids=chat.input_ids,
        starts=tuple(start for start, _ in spans[: len(chat)]),
        ends=tuple(end for _, end in spans[: len(chat)]),
        loss=tuple(i in learned for i in range(len(chat))),
        training_prompt=rendered.prompt,
        evaluation_prompt=render_prompt(tokenizer, example.prompt, evaluation_system),
        template_prompt=render(tokenizer, asked, generation=True),
        template_text=render(tokenizer, written, generation=False),
    )


def template_findings(
    tokenizer: Any,
    examples: Sequence[TrainingExample],
    chats: Mapping[int, EncodedChat],
    *,
    system: str | None,
    max_tokens: int | None,
    n_ids: int,
) -> list[LintFinding]:
    """Where the chat template alone would write or ask other texts than are trained on, and rows that the model has no positions for.

    Args:
        chats: position of a row -> its uncut chat.
    """
    n, template, limit = len(examples), template_of(tokenizer), room(tokenizer)
    every = [example.id for example in examples]
    found = [
        finding
        for note in template.notes
        for finding in make_finding(note.name, every, n, found=f"{note.text}.", n_ids=n_ids)
    ]
    trimmed = [
        examples[i].id
        for i in chats
        if (response := examples[i].response) != response.strip()
        and not render_example(tokenizer, examples[i], system).response.endswith(response)
    ]
    found += make_finding(
        "whitespace taken off", trimmed, n, found="spaces or line ends at the ends of responses.", n_ids=n_ids
    )
    if limit is not None:
        kept = {i: min(len(chat), max_tokens or len(chat)) for i, chat in chats.items()}
        long = [examples[i].id for i, length in kept.items() if length > limit]
        text = f"up to {max(kept.values(), default=0)} tokens, the model has positions for {limit}."
        found += make_finding("beyond the context", long, n, found=text, n_ids=n_ids)
    return found


def shown_rows(
    tokenizer: Any,
    examples: Sequence[TrainingExample],
    chats: Mapping[int, EncodedChat],
    *,
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
        rendered_row(
            tokenizer, examples[i], systems[0], evaluation_system=systems[1], max_tokens=max_tokens, why=", ".join(why)
        )
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
