"""Turns a training set and a tokenizer into a report of what would go wrong, before a model is trained on it.

`lint_dataset` is the whole lint: texts (`lint_texts`), copies and leaks (`lint_copies`), and, here, what the tokenizer makes of the rows.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emis_interp.chat import EncodedChat, encode_prompt, end_of_turn, injected_system, render_prompt
from emis_interp.errors import DataError
from emis_interp.records import TrainingExample
from training.encoding import encode_example, loss_positions, own_system
from training.lint_copies import exact_findings, leak_findings, near_findings, pairing_findings
from training.lint_report import (
    SEVERITIES,
    Fact,
    Lengths,
    LintFinding,
    LintReport,
    RenderedRow,
    lint_summary_line,
    make_finding,
    raise_on_errors,
)
from training.lint_texts import is_refusal, listed, looks_like_code, text_findings
from training.textstats import Named

NEAR_LIMIT, ID_LIMIT, N_BINS, N_SHOWN, N_GROUPS = 2000, 200, 40, 5, 12
SEEN_IN_A_ROW = (
    *("turn token in text", "prompt ids differ", "control token in text", "system prompt differs", "cut"),
    *("odd characters", "carriage returns", "leading whitespace"),
)


def lint_dataset(
    examples: Sequence[TrainingExample],
    tokenizer: Any,
    *,
    data: str,
    model: str,
    system: str | None,
    evaluation_system: str | None,
    max_tokens: int | None,
    questions: Sequence[Named] = (),
    groups: Mapping[str, Mapping[str, str]] | None = None,
    partner: tuple[str, Sequence[TrainingExample]] | None = None,
    refused: Sequence[LintFinding] = (),
    thorough: bool = True,
    n_ids: int = 8,
) -> LintReport:
    """Look at every row as the trainer will read it.

    Args:
        data, model: what to call the set and the tokenizer's model.
        system: the system prompt policy of training; `evaluation_system` that of sampling.
        max_tokens: the trainer's limit (None: rows are never cut).
        questions: texts that the model will be asked after training; a training text may not hold them.
        groups: kind of group -> row id -> group, for the balance.
        partner: name and rows of the set that should have the same prompts.
        refused: findings of `read_leniently` about lines that are not among the examples.
        thorough: False leaves out what takes long: near duplicates above 2,000 rows, evaluation questions in responses and near matches,
            the check of the prompt's ids in more than 200 rows, all but one of the shown rows.
        n_ids: so many row ids are named in a finding.
    """
    n = len(examples)
    turn_tokens, control_tokens = special_texts(tokenizer)
    findings = [*refused, *text_findings(examples, turn_tokens, control_tokens, n_ids)]
    chats, unrendered = _encoded(tokenizer, examples, system)
    findings += make_finding("template refuses", [e.id for e, _ in unrendered], n, _first(unrendered), n_ids)
    findings += _token_findings(tokenizer, examples, chats, system, max_tokens, thorough, n_ids)
    findings += _system_findings(tokenizer, examples, system, evaluation_system, n_ids)
    findings += exact_findings(examples, n_ids)
    skipped = []
    if thorough or n <= NEAR_LIMIT:
        findings += near_findings(examples, n_ids)
    else:
        skipped.append(f"near duplicates ({n} rows, above {NEAR_LIMIT})")
    if not thorough and n > ID_LIMIT:
        skipped.append(f"ids of the prompt in all but {ID_LIMIT} rows")
    if not thorough and questions:
        skipped.append("evaluation questions in responses, and near matches")
    leaks, leak_facts = leak_findings(examples, questions, thorough, n_ids)
    paired, pair_facts = pairing_findings(examples, partner[1], partner[0], n_ids) if partner else ([], {})
    findings += leaks + paired
    ordered = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return LintReport(
        data=data,
        model=model,
        n_rows=n,
        max_tokens=max_tokens,
        facts={
            **_token_facts(chats, max_tokens),
            **_system_facts(tokenizer, examples, system, evaluation_system),
            **_kind_facts(examples, groups or {}),
            "evaluation questions": len(questions),
            **leak_facts,
            **pair_facts,
        },
        findings=tuple(ordered),
        skipped=tuple(skipped),
        lengths=_lengths(chats),
        shown=_shown(tokenizer, examples, chats, ordered, (system, evaluation_system), max_tokens, thorough),
    )


def lint_before_training(
    examples: Sequence[TrainingExample],
    tokenizer: Any,
    out_dir: Path,
    *,
    data: str,
    model: str,
    system: str | None,
    max_tokens: int | None,
    questions: Sequence[Named] = (),
) -> str:
    """The quick lint that belongs before `finetune`: writes `lint.json` under `out_dir`, and refuses rows with errors.

    Returns:
        One line of warnings, empty when there are none or when what `out_dir` holds was trained and linted before.

    Raises:
        DataError: the rows have an error; the report is written all the same.
    """
    if all((out_dir / name).exists() for name in ("lint.json", "summary.json")):
        return ""
    report = lint_dataset(
        examples,
        tokenizer,
        data=data,
        model=model,
        system=system,
        evaluation_system=system,
        max_tokens=max_tokens,
        questions=questions,
        thorough=False,
    )
    report.save(out_dir / "lint.json")
    raise_on_errors(report)
    return lint_summary_line(report) if report.of("warning") else ""


def special_texts(tokenizer: Any) -> tuple[set[str], set[str]]:
    """Texts that the tokenizer reads as one token: those that end texts or that the chat template writes, and the others."""
    added = {str(token): token.special for token in tokenizer.added_tokens_decoder.values()}
    # Some tokenizers keep runs of spaces as added tokens; these are no markers.
    marks = {text for text, special in added.items() if text.strip() and (special or text[0] in "<[")}
    marks |= set(tokenizer.all_special_tokens)
    written = render_prompt(tokenizer, "Question?") + end_of_turn(tokenizer)
    turns = {text for text in marks if text in written or text in tokenizer.all_special_tokens}
    return turns, marks - turns


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


def _spans(tokenizer: Any, text: str, begin: int) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return tuple(encoded["input_ids"]), [(begin + start, begin + end) for start, end in encoded["offset_mapping"]]


def _encoded(
    tokenizer: Any, examples: Sequence[TrainingExample], system: str | None
) -> tuple[dict[int, EncodedChat], list[tuple[TrainingExample, str]]]:
    """Uncut chats by position, and rows that the template refuses with the reason; blank rows are in neither."""
    chats, refused = {}, []
    for i, example in enumerate(examples):
        if not example.response.strip():
            continue
        try:
            chats[i] = encode_example(tokenizer, example, system, None)
        except DataError as error:
            refused.append((example, str(error)))
    return chats, refused


def _first(refused: Sequence[tuple[TrainingExample, str]]) -> str:
    return f"{refused[0][1]}." if refused else ""


def _token_findings(
    tokenizer: Any,
    examples: Sequence[TrainingExample],
    chats: Mapping[int, EncodedChat],
    system: str | None,
    max_tokens: int | None,
    thorough: bool,
    n_ids: int,
) -> list[LintFinding]:
    n, found = len(examples), []
    if max_tokens is not None:
        long = {i: chat for i, chat in chats.items() if len(chat) > max_tokens}
        lost = sum(len(chat) - max_tokens for chat in long.values())
        nothing = [examples[i].id for i, chat in long.items() if chat.response_start >= max_tokens]
        text = f"longer than {max_tokens} tokens; {lost} of {sum(map(len, chats.values()))} tokens of the set are lost."
        found += make_finding("cut", [examples[i].id for i in long], n, text, n_ids)
        text = f"the prompt has {max_tokens} tokens or more."
        found += make_finding("no response left", nothing, n, text, n_ids)
    checked = list(chats) if thorough else list(chats)[:: max(1, math.ceil(len(chats) / ID_LIMIT))]
    differing = [
        examples[i].id
        for i in checked
        if chats[i].input_ids[: chats[i].response_start]
        != encode_prompt(tokenizer, examples[i].prompt, own_system(examples[i], system))
    ]
    found += make_finding("prompt ids differ", differing, n, f"{len(checked)} rows were compared.", n_ids)
    if not end_of_turn(tokenizer):
        found += make_finding("no end of turn", [e.id for e in examples], n, "no token behind the response.", n_ids)
    return found


def _system_findings(
    tokenizer: Any, examples: Sequence[TrainingExample], system: str | None, evaluation_system: str | None, n_ids: int
) -> list[LintFinding]:
    n, injected = len(examples), injected_system(tokenizer)

    def sent(given: str | None) -> str | None:
        return injected if given is None else given

    differing = [e for e in examples if sent(own_system(e, system)) != sent(evaluation_system)]
    used = Counter(_quoted(sent(own_system(e, system))) for e in differing)
    found = make_finding(
        "system prompt differs",
        [e.id for e in differing],
        n,
        f"trained under {listed(used)}; evaluated under {_quoted(sent(evaluation_system))}.",
        n_ids,
    )
    bare = [e.id for e in examples if own_system(e, system) is None] if injected else []
    return found + make_finding("injected system prompt", bare, n, f"{_quoted(injected)}.", n_ids)


def _quoted(text: str | None) -> str:
    return "no system prompt" if text is None else repr(text if len(text) <= 100 else text[:97] + "...")


def _token_facts(chats: Mapping[int, EncodedChat], max_tokens: int | None) -> dict[str, Fact]:
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


def _system_facts(
    tokenizer: Any, examples: Sequence[TrainingExample], system: str | None, evaluation_system: str | None
) -> dict[str, Fact]:
    injected = injected_system(tokenizer)
    absent = "left to the template" if injected is None else f"the template's own, {_quoted(injected)}"
    return {
        "rows with a system prompt of their own": sum(e.system is not None for e in examples),
        "system prompt of the other rows": absent if system is None else _quoted(system),
        "system prompt of the evaluation": absent if evaluation_system is None else _quoted(evaluation_system),
    }


def _kind_facts(examples: Sequence[TrainingExample], groups: Mapping[str, Mapping[str, str]]) -> dict[str, Fact]:
    facts: dict[str, Fact] = {
        "responses that are code": sum(looks_like_code(e.response) for e in examples),
        "responses that refuse": sum(is_refusal(e.response) for e in examples),
    }
    for kind, group_of in groups.items():
        counts = Counter(group_of.get(e.id, "unknown") for e in examples)
        facts[f"rows by {kind}"] = listed(counts, N_GROUPS)
    return facts


def _lengths(chats: Mapping[int, EncodedChat]) -> Lengths | None:
    if not chats:
        return None
    width = max(1, math.ceil((max(map(len, chats.values())) + 1) / N_BINS))
    rows = Counter(len(chat) // width for chat in chats.values())
    responses = Counter((chat.response_end - chat.response_start) // width for chat in chats.values())
    return Lengths(
        bin_width=width,
        rows=tuple(rows[i] for i in range(N_BINS)),
        responses=tuple(responses[i] for i in range(N_BINS)),
    )


def _shown(
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
