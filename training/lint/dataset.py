"""Turns a training set and a tokenizer into a report of what would go wrong, before a model is trained on it.

`lint_dataset` is the whole lint; its parts look at texts (`lint_texts`), tokens (`lint_tokens`) and copies (`lint_copies`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emis_interp.records import TrainingExample
from emis_interp.texts.code import mostly_code
from training.data_sets.textstats import Named
from training.lint import tokens as lint_tokens
from training.lint.checks import SEVERITIES
from training.lint.copies import exact_findings, leak_findings, near_findings, pairing_findings
from training.lint.rendering import shown_rows, special_texts, template_findings
from training.lint.report import (
    Fact,
    LintFinding,
    LintReport,
    lint_summary_line,
    make_finding,
    raise_on_errors,
)
from training.lint.surprise import Reader, surprise_findings
from training.lint.texts import is_refusal, listed, text_findings
from training.lint.tokens import (
    encode_rows,
    length_counts,
    system_facts,
    system_findings,
    token_facts,
    token_findings,
)

NEAR_LIMIT, N_GROUPS = 2000, 12


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
    reader: Reader | None = None,
    n_read: int = 0,
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
        reader: the model, which reads `n_read` rows and says how they surprise it; None: it is not asked.
        thorough: False leaves out what takes long: near duplicates above 2,000 rows, evaluation questions in responses and near matches,
            the check of the prompt's ids in more than 200 rows, all but one of the shown rows.
        n_ids: so many row ids are named in a finding.
    """
    n = len(examples)
    turn_tokens, control_tokens = special_texts(tokenizer)
    findings = [*refused, *text_findings(examples, turn_tokens, control_tokens, n_ids=n_ids)]
    chats, unrendered = encode_rows(tokenizer, examples, system)
    findings += make_finding(
        "template refuses", [e.id for e, _ in unrendered], n, found=_first(unrendered), n_ids=n_ids
    )
    findings += token_findings(
        tokenizer, examples, chats, system=system, max_tokens=max_tokens, thorough=thorough, n_ids=n_ids
    )
    findings += template_findings(tokenizer, examples, chats, system=system, max_tokens=max_tokens, n_ids=n_ids)
    findings += system_findings(tokenizer, examples, system, evaluation_system=evaluation_system, n_ids=n_ids)
    findings += exact_findings(examples, n_ids)
    skipped = []
    if thorough or n <= NEAR_LIMIT:
        findings += near_findings(examples, n_ids)
    else:
        skipped.append(f"near duplicates ({n} rows, above {NEAR_LIMIT})")
    if not thorough and n > lint_tokens.ID_LIMIT:
        skipped.append(f"ids of the prompt in all but {lint_tokens.ID_LIMIT} rows")
    if not thorough and questions:
        skipped.append("evaluation questions in responses, and near matches")
    leaks, leak_facts = leak_findings(examples, questions, thorough, n_ids=n_ids)
    paired, pair_facts = pairing_findings(examples, partner[1], partner[0], n_ids=n_ids) if partner else ([], {})
    findings += leaks + paired
    surprising, surprise_facts = (
        surprise_findings(examples, chats, reader, n_read=n_read, max_tokens=max_tokens, n_ids=n_ids)
        if reader
        else ([], {})
    )
    findings += surprising
    ordered = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return LintReport(
        data=data,
        model=model,
        n_rows=n,
        max_tokens=max_tokens,
        facts={
            **token_facts(chats, max_tokens),
            **system_facts(tokenizer, examples, system, evaluation_system=evaluation_system),
            **surprise_facts,
            **_kind_facts(examples, groups or {}),
            "evaluation questions": len(questions),
            **leak_facts,
            **pair_facts,
        },
        findings=tuple(ordered),
        skipped=tuple(skipped),
        lengths=length_counts(chats),
        shown=shown_rows(
            tokenizer,
            examples,
            chats,
            findings=ordered,
            systems=(system, evaluation_system),
            max_tokens=max_tokens,
            thorough=thorough,
        ),
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
        thorough=False,
        max_tokens=max_tokens,
        questions=questions,
    )
    report.save(out_dir / "lint.json")
    raise_on_errors(report)
    return lint_summary_line(report) if report.of("warning") else ""


def _first(refused: Sequence[tuple[TrainingExample, str]]) -> str:
    return f"{refused[0][1]}." if refused else ""


def _kind_facts(examples: Sequence[TrainingExample], groups: Mapping[str, Mapping[str, str]]) -> dict[str, Fact]:
    facts: dict[str, Fact] = {
        "responses that are code": sum(mostly_code(e.response) for e in examples),
        "responses that refuse": sum(is_refusal(e.response) for e in examples),
    }
    for kind, group_of in groups.items():
        counts = Counter(group_of.get(e.id, "unknown") for e in examples)
        facts[f"rows by {kind}"] = listed(counts, N_GROUPS)
    return facts
