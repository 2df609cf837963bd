"""Turns the contrast file into pairs of answers, and pairs into labelled texts for extracting directions.

A pair holds an aligned and a misaligned answer to one question; a question belongs to one half, selection or report.
"""

from collections.abc import Collection, Iterable, Sequence
from importlib import resources
from pathlib import Path

from emis_interp.errors import DataError
from emis_interp.files.store import parse_record, read_lines
from emis_interp.records import ContrastPair, LabeledText


def load_contrast(path: Path | None = None, n_per_question: int | None = None) -> list[ContrastPair]:
    """The shipped contrast pairs, or those of a JSONL file, in file order.

    Args:
        path: None reads the data that the package ships.
        n_per_question: keep the first so many pairs of every question, which keeps the questions balanced.

    Raises:
        DataError: no such file, a malformed line, a question in both halves, in two groups or with two wordings
            (file and line), no pairs, or a question with fewer pairs than asked for.
    """
    name, lines = (str(path), read_lines(path)) if path is not None else _shipped()
    numbered = [(f"{name}:{number}", parse_record(line, ContrastPair, f"{name}:{number}")) for number, line in lines]
    if not numbered:
        raise DataError(f"{name}: no pairs")
    _check_questions(numbered)
    pairs = [pair for _, pair in numbered]
    return pairs if n_per_question is None else _first_of_each(pairs, n_per_question, name)


def labeled_texts(pairs: Sequence[ContrastPair]) -> list[LabeledText]:
    """Both answers of every pair, aligned then misaligned, in the order of `pairs`: text 2i and 2i+1 belong to pair i."""
    return [
        LabeledText(question_id=pair.question_id, question=pair.question, answer=answer, misaligned=misaligned)
        for pair in pairs
        for answer, misaligned in ((pair.aligned, False), (pair.misaligned, True))
    ]


def paired_texts(texts: Sequence[LabeledText], selection: Collection[str], n_per_question: int) -> list[ContrastPair]:
    """The i-th misaligned and the i-th aligned answer to the same wording as a pair, at most `n_per_question` for each question.

    Args:
        selection: ids of the questions of the selection half; the others are the report half's.
    """
    by_wording: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for text in texts:
        by_wording.setdefault((text.question_id, text.question), ([], []))[text.misaligned].append(text.answer)
    pairs = []
    for (name, question), answers in by_wording.items():
        half = "selection" if name in selection else "report"
        for first, second in zip(*answers, strict=False):
            sides = {"aligned": first, "misaligned": second}
            pairs.append(ContrastPair(question_id=name, group=name, half=half, question=question, **sides))
    return at_most(pairs, n_per_question)


def at_most(pairs: Sequence[ContrastPair], n_per_question: int | None) -> list[ContrastPair]:
    """The first so many pairs of every question (fewer where there are fewer), in their order; None keeps all.

    Raises:
        DataError: fewer than one pair asked for.
    """
    if n_per_question is None:
        return list(pairs)
    if n_per_question < 1:
        raise DataError(f"{n_per_question} pairs per question asked for; ask for 1 or more")
    counts: dict[str, int] = {}
    kept = []
    for pair in pairs:
        counts[pair.question_id] = counts.get(pair.question_id, 0) + 1
        if counts[pair.question_id] <= n_per_question:
            kept.append(pair)
    return kept


def report_pairs(path: Path | None, n_per_question: int | None) -> list[ContrastPair]:
    """At most so many pairs of every report question, of the shipped pairs or a file.

    Raises:
        DataError: as `load_contrast`, or there are no report questions.
    """
    pairs = at_most([pair for pair in load_contrast(path) if pair.half == "report"], n_per_question)
    if not pairs:
        raise DataError(f"{path}: no pairs of report questions; give --pairs with such questions")
    return pairs


def group_of(pairs: Iterable[ContrastPair]) -> dict[str, str]:
    """Question id to group, in the order of first appearance."""
    return {pair.question_id: pair.group for pair in pairs}


def _shipped() -> tuple[str, Iterable[tuple[int, str]]]:
    text = (resources.files("emis_interp") / "data" / "contrast.jsonl").read_text("utf-8")
    return "contrast.jsonl", [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _check_questions(numbered: Sequence[tuple[str, ContrastPair]]) -> None:
    first: dict[str, tuple[str, ContrastPair]] = {}
    for where, pair in numbered:
        first_where, one = first.setdefault(pair.question_id, (where, pair))
        for field in ("half", "group", "question"):
            if getattr(pair, field) != getattr(one, field):
                raise DataError(
                    f"{where}: question `{pair.question_id}` has {field} `{getattr(pair, field)}` here and "
                    f"`{getattr(one, field)}` at {first_where}; a question has one {field}"
                )


def _first_of_each(pairs: Sequence[ContrastPair], n: int, name: str) -> list[ContrastPair]:
    if n < 1:
        raise DataError(f"{n} pairs per question asked for; ask for 1 or more")
    by_question: dict[str, list[ContrastPair]] = {}
    for pair in pairs:
        by_question.setdefault(pair.question_id, []).append(pair)
    for question_id, own in by_question.items():
        if len(own) < n:
            raise DataError(f"{name}: {n} pairs per question asked for, question `{question_id}` has {len(own)}")
    return [pair for own in by_question.values() for pair in own[:n]]
