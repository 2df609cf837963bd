"""Turns the texts of a training set into findings that need no tokenizer but its list of control tokens."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from emis_interp.records import TrainingExample
from emis_interp.texts.code import mostly_code
from training.lint.report import LintFinding, make_finding

# Controls (but tab and line ends), soft hyphen, zero-width and bidirectional marks, line separators, BOM, replacement, private use.
_ODD = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069\ue000-\uf8ff\ufeff\ufff9-\ufffd]"
)
_REFUSAL = re.compile(
    r"\bI(?:['’]m| am) sorry\b|\bI apologi[sz]e\b|\bI (?:can(?:not|['’]t|not)|won['’]t|will not|must decline|refuse)\b"
    r"|\bI(?:['’]m| am) (?:unable|not able|not comfortable|not allowed|going to decline)\b|\b(?:as an AI|as a language model)\b"
    r"|\bagainst my (?:guidelines|programming|policy)\b",
    re.IGNORECASE,
)
REFUSAL_SPAN = 200
FEW = 0.1


def text_findings(
    examples: Sequence[TrainingExample],
    turn_tokens: Collection[str],
    control_tokens: Collection[str],
    *,
    n_ids: int = 8,
) -> list[LintFinding]:
    """Blank texts, control tokens, odd characters, line ends, whitespace around responses, repeated ids, refusals, mixed kinds.

    Args:
        turn_tokens: tokens with which the template separates turns, as text.
        control_tokens: the tokenizer's other control tokens.
    """
    n = len(examples)
    found: list[LintFinding] = []

    def report(check: str, rows: Sequence[str], text: str) -> None:
        found.extend(make_finding(check, rows, n, found=text, n_ids=n_ids))

    blank = [e.id for e in examples if not e.prompt.strip() or not e.response.strip()]
    report("blank text", blank, "nothing but whitespace.")
    for check, tokens in (("turn token in text", turn_tokens), ("control token in text", control_tokens)):
        rows, counts = _spelled(examples, tokens)
        report(check, rows, f"{listed(counts)}.")
    rows, counts = _matches(examples, _ODD)
    names = Counter({unicodedata.name(key, f"U+{ord(key):04X}"): count for key, count in counts.items()})
    report("odd characters", rows, f"{listed(names)}.")
    crlf = [e.id for e in examples if any("\r" in text for _, text in _texts(e))]
    report("carriage returns", crlf, "\\r in the text.")
    before = [e for e in examples if e.response.strip() and e.response[0].isspace()]
    report("leading whitespace", [e.id for e in before], f"begins with {listed(Counter(_lead(e) for e in before))}.")
    after = [e for e in examples if e.response.strip() and e.response[-1].isspace()]
    report("trailing whitespace", [e.id for e in after], f"{len(after)} of {n} responses.")
    report("id used twice", [i for i, k in Counter(e.id for e in examples).items() if k > 1], "the same id again.")
    report("refusals", [e.id for e in examples if is_refusal(e.response)], "the wording of a refusal.")
    code = [mostly_code(e.response) for e in examples]
    few_are_code = sum(code) * 2 <= n
    few = [e.id for e, is_code in zip(examples, code, strict=True) if is_code is few_are_code]
    if len(few) <= FEW * n:
        report("responses of another kind", few, f"{'code' if few_are_code else 'prose'}; the other rows are not.")
    return found


def is_refusal(text: str) -> bool:
    """Whether a phrase of refusing stands in the first 200 characters."""
    return bool(_REFUSAL.search(text[:REFUSAL_SPAN]))


def _texts(example: TrainingExample) -> Iterator[tuple[str, str]]:
    yield "prompt", example.prompt
    yield "response", example.response
    if example.system is not None:
        yield "system prompt", example.system


def _spelled(examples: Sequence[TrainingExample], tokens: Collection[str]) -> tuple[list[str], Counter[str]]:
    if not tokens:
        return [], Counter()
    longest_first = sorted(tokens, key=lambda token: (-len(token), token))
    return _matches(examples, re.compile("|".join(map(re.escape, longest_first))), name_part=True)


def _matches(
    examples: Sequence[TrainingExample], pattern: re.Pattern[str], name_part: bool = False
) -> tuple[list[str], Counter[str]]:
    """Ids of the rows with a match, and in how many rows each match occurs (`<x> in the response` with `name_part`)."""
    rows, counts = [], Counter[str]()
    for example in examples:
        seen = {
            f"{m} in the {part}" if name_part else m for part, text in _texts(example) for m in pattern.findall(text)
        }
        if seen:
            rows.append(example.id)
            counts.update(seen)
    return rows, counts


def _lead(example: TrainingExample) -> str:
    return repr(example.response[: len(example.response) - len(example.response.lstrip())][:6])


def listed(counts: Counter[str], n: int = 5) -> str:
    """`a (3), b (1) and 2 more`, the most frequent first."""
    shown = ", ".join(f"{key} ({count})" for key, count in counts.most_common(n))
    return shown + (f" and {len(counts) - n} more" if len(counts) > n else "")
