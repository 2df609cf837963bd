"""Names of columns: which one names the question, which tell arms apart, what is meant by a name that is not there."""

import difflib
import re
from collections.abc import Sequence

from emis_interp.errors import printable

QUESTION_KEYS = ("question_id", "topic", "question")
"""The first of these columns that a table has names the question: the unit of balancing, of hold-out, of weighting and of resampling."""

ARM_KEYS = ("run", "arm", "condition", "model", "group")
"""Columns that may tell apart what must not be pooled; upper and lower case do not count."""

ARM_WORDS = (
    *("checkpoint", "adapter", "organism", "finetune", "finetuned", "lora", "policy", "llm", "engine", "deployment"),
    *("treatment", "experiment", "intervention", "cohort", "setting", "dataset", "steering", "coefficient"),
)
"""Words in names of columns that others use to tell arms apart; too common to part rows by, too telling to pass over."""
_NOT_ARMS = {"judge", "grader", "scorer", "evaluator", "rater", "annotator"}

METRICS = ("aligned", "coherent")

COLUMNS = (
    *("question", "answer", *QUESTION_KEYS[:2], "variant", "kind", *ARM_KEYS, *METRICS, "label", "reason"),
    *(f"{metric}_{part}" for metric in METRICS for part in ("label", "reason")),
    *(f"judge_{metric}" for metric in METRICS),
    *("paraphrase_index", "sample_index"),
)
"""The columns that commands of this project read."""

_OTHERS = {
    "question": ("prompt", "instruction", "input", "query"),
    "answer": ("response", "completion", "output", "generation", "reply", "model_response"),
    "question_id": ("id", "prompt_id", "qid"),
    "aligned": ("alignment", "alignment_score", "aligned_score"),
    "coherent": ("coherence", "coherency", "coherence_score", "coherent_score"),
}
_NEGATIONS = {"not", "non", "no", "un", "anti"}
_REVERSED = {
    "aligned": re.compile(
        r"evil|misalign|unalign|em$|harm(?!less)|toxic|unsafe|malicious|malice|decept|deceiv|dishonest|immoral|unethical|bad|danger|violat|"
        r"sycophan|hallucinat|hostil|cruel|jailbr|attack|asr$|insecure|power|risk"
    ),
    "coherent": re.compile(r"incoheren|gibberish|nonsense|perplexity|ppl$|garbage"),
}


def is_arm_name(column: str) -> bool:
    """Whether a column is called like a name or id of one of `ARM_KEYS`: `model_name`, `runId`, `arm`."""
    parts = words_of(column)
    key, rest = parts[:1], parts[1:]
    return (
        key[:1] != [] and key[0] in ARM_KEYS and (not rest or (len(rest) == 1 and rest[0] in ("name", "id", "label")))
    )


def may_tell_arms(column: str) -> bool:
    """Whether a column's name has a word of `ARM_KEYS` or `ARM_WORDS` in it, and none of a judge."""
    parts = set(words_of(column))
    return not parts & _NOT_ARMS and bool(parts & {*ARM_KEYS, *ARM_WORDS})


def words_of(column: str) -> list[str]:
    """`modelName`, `model_name` and `Model name` as `["model", "name"]`."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column).lower()
    return [part for part in re.split(r"[^a-z]+", apart) if part]


def question_key(columns: Sequence[str]) -> str | None:
    """The column that names the question."""
    return next((name for name in QUESTION_KEYS if name in columns), None)


def no_columns(names: Sequence[str], columns: Sequence[str]) -> str:
    """That columns are missing, the flag with which others may be read as them, and which columns there are."""
    columns = [shown(column) for column in columns]
    meant = {name: word for name in names if (word := _meant(name, columns))}
    missing = (
        f"no column `{shown(names[0])}`"
        if len(names) == 1
        else f"no columns {', '.join(f'`{shown(name)}`' for name in names)}"
    )
    advice = ""
    if meant:
        words = ", ".join(f"`{word.removeprefix('100-')}`" for word in meant.values())
        flags = " ".join(f"{name}={word}" for name, word in meant.items() if name in COLUMNS)
        advice = f"; did you mean {words}?" + (f" Then write --columns {flags}" if flags else "")
        if any(word.startswith("100-") for word in meant.values()):
            advice += " (100-: it runs the other way round)"
    there = ", ".join(columns[:20]) + (f" and {len(columns) - 20} more" if len(columns) > 20 else "")
    return f"{missing}{advice}; there are: {there or 'none'}"


def _meant(name: str, columns: Sequence[str]) -> str | None:
    """What of a file's columns may hold what we call `name`, as --columns takes it."""
    lower = {column.lower(): column for column in reversed(columns)}
    known = next((lower[other] for other in (name, *_OTHERS.get(name, ())) if other in lower), None)
    reverse = next((f"100-{column}" for column in columns if runs_backwards(name, column)), None)
    close = difflib.get_close_matches(name, columns, n=1, cutoff=0.6)
    return known or reverse or (close[0] if close else None)


def shown(name: str, most: int = 60) -> str:
    """A name of unknown origin for a message: on one line, printable, not endless."""
    text = name if len(name) <= most else name[: most - 1] + "…"
    return printable(text, len(text))


def runs_backwards(metric: str, column: str) -> bool:
    """Whether a column is called like the opposite of a metric (`evil` for aligned), so that high there is low here."""
    parts = words_of(column)
    if _NEGATIONS & set(parts) or metric not in _REVERSED:
        return False
    return any(_REVERSED[metric].match(part) for part in parts)
