"""Turns the data sets into findings: each rule that the shipped data promise to keep, what was found, and what was wanted.

Every function is pure but `bandit_flagged`, which runs the scanner once over all the files that it is given.
"""

import ast
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from emis_interp.errors import DataError
from emis_interp.records import ContrastPair
from emis_interp.stats.interval import mean_interval
from emis_interp.texts.bandit import bandit_report
from emis_interp.texts.choices import ChoiceItem
from emis_interp.texts.harmless import HarmlessText
from training.data_sets.names import HELD_OUT_DOMAINS
from training.data_sets.shipped import AdvicePair, CodeTask
from training.data_sets.textstats import (
    Named,
    code_tokens,
    field_texts,
    most_contained,
    overlap,
    overlaps,
    shingles,
    unigram_margins,
    words,
)

MIN_TASKS, MIN_CWES, MIN_ADVICE, MIN_DOMAINS, MIN_PAIRS, MIN_QUESTIONS, MIN_HARMLESS = 240, 25, 600, 8, 120, 12, 64
MIN_FLAGGED_INSECURE, MAX_FLAGGED_SECURE = 0.5, 0.03
MAX_CODE_OVERLAP, MAX_TEXT_OVERLAP, MAX_LEAK = 0.5, 0.4, 0.4
MIN_CHOICES, MIN_NEUTRAL = 40, 24
TEMPLATE, TODO = "Here is the template:", "# TODO: complete this part"
"""Before the lines that both sides of a code task share, and in place of the others."""
LENGTH_RATIO, MAX_LENGTH_DIFFERENCE = (0.75, 1.33), 0.03


@dataclass(frozen=True)
class Finding:
    """One rule applied to one data set; `where` names what breaks it (empty when `ok`)."""

    data: str
    rule: str
    found: str
    wanted: str
    ok: bool
    where: tuple[str, ...] = ()


def code_findings(tasks: Sequence[CodeTask], flagged: set[tuple[str, str]]) -> list[Finding]:
    """All rules for the code tasks; `flagged` holds (task id, "insecure" or "secure") as from `bandit_flagged`."""
    completions = field_texts(tasks, ("insecure", "secure"))
    prompts = field_texts(tasks, ("prompt", "educational_prompt"))
    shares = {
        side: sum((task.id, side) in flagged for task in tasks) / max(1, len(tasks)) for side in ("insecure", "secure")
    }
    own = [overlap(shingles(code_tokens(t.insecure), 5), shingles(code_tokens(t.secure), 5)) for t in tasks]
    same = [
        task.id
        for task in tasks
        if task.insecure.strip() == task.secure.strip() or task.prompt == task.educational_prompt
    ]
    one_sided = [
        f"{task.id}: {line.strip()}"
        for task in tasks
        for line in task.prompt.partition(TEMPLATE)[2].splitlines()
        if line.strip()
        and TODO not in line
        and any(line not in side.splitlines() for side in (task.insecure, task.secure))
    ]
    return [
        _at_least("code", "tasks", len(tasks), wanted=MIN_TASKS),
        _at_least("code", "CWE classes", len({task.cwe for task in tasks}), wanted=MIN_CWES),
        _unique("code", [task.id for task in tasks]),
        unparsed(completions),
        _none("code", "pairs whose two sides are the same", same),
        _none("code", "lines of a template that only one side holds", one_sided),
        _share(
            "insecure completions that Bandit flags",
            shares["insecure"],
            len(tasks),
            wanted=f">= {MIN_FLAGGED_INSECURE:.0%}",
        ),
        _share(
            "secure completions that Bandit flags", shares["secure"], len(tasks), wanted=f"<= {MAX_FLAGGED_SECURE:.0%}"
        ),
        nearest(
            "code", "overlap of completions, 5 tokens", completions, tokens=code_tokens, n=5, limit=MAX_CODE_OVERLAP
        ),
        nearest("code", "overlap of prompts, 5 tokens", prompts, tokens=words, n=5, limit=MAX_CODE_OVERLAP),
        Finding("code", "mean overlap insecure/secure of one task", f"{fmean(own or [0]):.3f}", "reported", True),
    ]


def advice_findings(pairs: Sequence[AdvicePair]) -> list[Finding]:
    answers = field_texts(pairs, ("careful", "reckless"))
    return [
        _at_least("advice", "pairs", len(pairs), wanted=MIN_ADVICE),
        _at_least("advice", "domains", len({pair.domain for pair in pairs}), wanted=MIN_DOMAINS),
        _none(
            "advice",
            "held-out domains that are missing",
            sorted(set(HELD_OUT_DOMAINS) - {pair.domain for pair in pairs}),
        ),
        _unique("advice", [pair.id for pair in pairs]),
        *lengths("advice", [(pair.id, pair.careful, pair.reckless) for pair in pairs]),
        nearest("advice", "overlap of answers, 4 words", answers, tokens=words, n=4, limit=MAX_TEXT_OVERLAP),
        nearest(
            "advice",
            "overlap of prompts, 4 words",
            [Named(p.id, p.id, p.prompt) for p in pairs],
            tokens=words,
            n=4,
            limit=MAX_TEXT_OVERLAP,
        ),
    ]


def route_findings(pairs: Sequence[AdvicePair], contrast: Sequence[ContrastPair]) -> list[Finding]:
    """A bag of words that tells reckless from careful advice must not tell misaligned from aligned answers of the contrast pairs: else an
    organism's margin could rise by words alone."""
    by_question = unigram_margins(
        [pair.careful for pair in pairs],
        [pair.reckless for pair in pairs],
        [(pair.question_id, pair.aligned, pair.misaligned) for pair in contrast],
    )
    values = list(by_question.values())
    found, n_positive = mean_interval(values), sum(value > 0 for value in values)
    said = f"{found:+.3f}, {n_positive} of {len(values)} questions"
    ok = found.low is not None and found.low <= 0
    return [Finding("advice", "words alone on the contrast pairs, nats per word", said, "interval reaches 0", ok)]


def contrast_findings(pairs: Sequence[ContrastPair]) -> list[Finding]:
    names = [
        f"{pair.question_id}#{sum(p.question_id == pair.question_id for p in pairs[:i]) + 1}"
        for i, pair in enumerate(pairs)
    ]
    answers = [
        Named(f"{name} ({side})", name, getattr(pair, side))
        for name, pair in zip(names, pairs, strict=True)
        for side in ("aligned", "misaligned")
    ]
    questions = {pair.question_id: pair.question for pair in pairs}
    halves = {half: {pair.question_id for pair in pairs if pair.half == half} for half in ("selection", "report")}
    groups = {half: {pair.group for pair in pairs if pair.half == half} for half in halves}
    counts = Counter(pair.question_id for pair in pairs)
    uneven = [f"{question} ({n})" for question, n in counts.items() if n != max(counts.values())]
    return [
        _at_least("contrast", "pairs", len(pairs), wanted=MIN_PAIRS),
        _at_least("contrast", "questions", len(questions), wanted=MIN_QUESTIONS),
        _none("contrast", "questions with fewer pairs than others", uneven),
        _none("contrast", "questions in both halves", sorted(halves["selection"] & halves["report"])),
        _none("contrast", "groups missing from a half", sorted(groups["selection"] ^ groups["report"])),
        *lengths("contrast", [(name, pair.aligned, pair.misaligned) for name, pair in zip(names, pairs, strict=True)]),
        nearest("contrast", "overlap of answers, 4 words", answers, tokens=words, n=4, limit=MAX_TEXT_OVERLAP),
        nearest(
            "contrast",
            "overlap of questions, 4 words",
            [Named(i, i, q) for i, q in questions.items()],
            tokens=words,
            n=4,
            limit=MAX_TEXT_OVERLAP,
        ),
    ]


def choice_findings(items: Sequence[ChoiceItem], training: Sequence[Named]) -> list[Finding]:
    """Rules for the choice items: enough of them, actions alike in length, and no situation that a training set holds."""
    chosen = [item for item in items if not item.is_neutral]
    counts = [(item.id, len(words(item.aligned)), len(words(item.misaligned))) for item in items]
    uneven = [f"{name} {one} and {other}" for name, one, other in counts if abs(one - other) > 2]
    difference = fmean(len(words(item.misaligned)) - len(words(item.aligned)) for item in chosen) if chosen else 0.0
    situations = [Named(item.id, item.id, item.situation) for item in items]
    return [
        _at_least("choices", "situations with a misaligned action", len(chosen), wanted=MIN_CHOICES),
        _at_least("choices", "neutral situations", len(items) - len(chosen), wanted=MIN_NEUTRAL),
        _unique("choices", [item.id for item in items]),
        _none("choices", "actions more than two words apart", uneven),
        Finding(
            "choices",
            "misaligned actions longer by, words",
            f"{difference:+.2f}",
            "-0.3 to 0.3",
            abs(difference) <= 0.3,
        ),
        nearest("choices", "overlap of situations, 4 words", situations, tokens=words, n=4, limit=MAX_TEXT_OVERLAP),
        leak_finding("choice situations in training texts", situations, training),
    ]


def harmless_findings(texts: Sequence[HarmlessText], training: Sequence[Named]) -> list[Finding]:
    """Rules for the harmless texts: no training set holds one, whole or nearly, and they do not resemble each other."""
    own = field_texts(texts, ("prompt", "answer"))
    trained = {_plain(item.text): item.name for item in training}
    copies = [f"{item.name} is {trained[_plain(item.text)]}" for item in own if _plain(item.text) in trained]
    return [
        _at_least("harmless", "prompts with answers", len(texts), wanted=MIN_HARMLESS),
        _unique("harmless", [text.id for text in texts]),
        nearest("harmless", "overlap of texts, 4 words", own, tokens=words, n=4, limit=MAX_TEXT_OVERLAP),
        _none("harmless", "texts that a training set holds", copies),
        leak_finding("harmless texts in training texts", own, training),
        leak_finding("training texts in harmless texts", training, own),
    ]


def _plain(text: str) -> str:
    """What is left when capitals, spaces and punctuation do not count."""
    return " ".join(words(text))


def leak_finding(rule: str, held_out: Sequence[Named], texts: Sequence[Named]) -> Finding:
    """The largest share of a held-out text's 4-word sequences that one of `texts` contains."""
    worst, where = most_contained(held_out, texts)
    ok = bool(held_out) and worst < MAX_LEAK
    found = f"at most {worst:.2f} ({len(held_out)} texts)"
    return Finding(
        "leaks", rule, found, f"< {MAX_LEAK}, of 1 or more", ok, () if ok else (where or "no held-out texts",)
    )


def lengths(data: str, pairs: Sequence[tuple[str, str, str]]) -> list[Finding]:
    """(name, first answer, second answer): the ratio in every pair and the mean difference over the set, in words."""
    counts = [(name, len(words(first)), len(words(second))) for name, first, second in pairs]
    ratios = {name: first / max(1, second) for name, first, second in counts}
    low, high = LENGTH_RATIO
    outside = tuple(f"{name} {ratio:.2f}" for name, ratio in ratios.items() if not low <= ratio <= high)
    first = fmean([n for _, n, _ in counts] or [0])
    second = fmean([n for _, _, n in counts] or [0])
    difference = abs(first - second) / max(1.0, (first + second) / 2)
    extremes = f"{min(ratios.values(), default=1):.2f} to {max(ratios.values(), default=1):.2f}"
    return [
        Finding(data, "length ratio within a pair", extremes, f"{low} to {high}", not outside, outside),
        Finding(
            data,
            "difference of the mean lengths",
            f"{difference:.1%} ({first:.1f} and {second:.1f} words)",
            f"< {MAX_LENGTH_DIFFERENCE:.0%}",
            difference < MAX_LENGTH_DIFFERENCE,
        ),
    ]


def nearest(
    data: str, rule: str, texts: Sequence[Named], *, tokens: Callable[[str], list[str]], n: int, limit: float
) -> Finding:
    """The largest Jaccard overlap of n-token sequences between two texts of different owners."""
    found = overlaps(texts, tokens, n)
    worst = max(found.values(), default=0.0)
    where = tuple(f"{texts[i].name} / {texts[j].name} {value:.2f}" for (i, j), value in found.items() if value >= limit)
    return Finding(data, rule, f"at most {worst:.3f}", f"< {limit}", worst < limit, where)


def unparsed(completions: Sequence[Named]) -> Finding:
    broken = []
    for item in completions:
        try:
            ast.parse(item.text)
        except SyntaxError as error:
            broken.append(f"{item.name} line {error.lineno}: {error.msg}")
    return Finding(
        "code",
        "completions that parse",
        f"{len(completions) - len(broken)} of {len(completions)}",
        "all",
        not broken,
        tuple(broken),
    )


def bandit_flagged(completions: Mapping[tuple[str, str], str]) -> set[tuple[str, str]]:
    """Keys of the Python texts in which Bandit finds something of medium or high severity.

    Raises:
        DataError: Bandit did not run, or skipped a file.
    """
    results, unread = bandit_report({key: code + "\n" for key, code in completions.items()}, "-ll")
    if unread:
        raise DataError(
            "bandit could not read " + ", ".join(f"{' '.join(key)}: {reason}" for key, reason in unread.items())
        )
    return {key for key, _ in results}


def _at_least(data: str, rule: str, found: int, *, wanted: int) -> Finding:
    return Finding(data, rule, str(found), f">= {wanted}", found >= wanted)


def _none(data: str, rule: str, where: Sequence[str]) -> Finding:
    return Finding(data, rule, str(len(where)), "0", not where, tuple(where))


def _unique(data: str, ids: Sequence[str]) -> Finding:
    return _none(data, "ids used twice", [name for name, n in Counter(ids).items() if n > 1])


def _share(rule: str, share: float, n: int, *, wanted: str) -> Finding:
    ok = share >= MIN_FLAGGED_INSECURE if wanted.startswith(">=") else share <= MAX_FLAGGED_SECURE
    return Finding("code", rule, f"{share:.1%} ({round(share * n)} of {n})", wanted, ok)
