"""Turns the texts of a training set into findings about copies: inside the set, of evaluation questions, and across two paired sets."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence

from emis_interp.records import ContrastPair, Question, TrainingExample
from training.data_sets.textstats import Named, code_tokens, contained, words
from training.lint.near_duplicates import near_duplicates
from training.lint.report import Fact, LintFinding, make_finding
from training.lint.texts import listed

MAX_CONTAINED, MAX_COSINE = 0.5, 0.6
LONGER = 3  # a prompt this many times longer than every question cannot reach the cosine


def exact_findings(examples: Sequence[TrainingExample], n_ids: int = 8) -> list[LintFinding]:
    """Rows, prompts and responses that occur more than once; a copied row is not counted again as prompt or response."""
    n = len(examples)
    rows = _groups(examples, lambda e: (e.system, e.prompt, e.response))
    distinct = [group[0] for group in rows]
    found = _copies("same row twice", rows, n, n_ids=n_ids)
    found += _copies("same prompt", _groups(distinct, lambda e: (e.system, e.prompt)), n, n_ids=n_ids)
    return found + _copies("same response", _groups(distinct, lambda e: e.response), n, n_ids=n_ids)


def near_findings(examples: Sequence[TrainingExample], n_ids: int = 8) -> list[LintFinding]:
    """Rows, prompts and responses that resemble another one but are not the same text (see `near_duplicates`)."""
    found = []
    for check, text in (
        ("near-duplicate rows", lambda e: f"{e.prompt}\n{e.response}"),
        ("near-duplicate prompts", lambda e: e.prompt),
        ("near-duplicate responses", lambda e: e.response),
    ):
        distinct = [group[0] for group in _groups(examples, text)]
        groups, nearest = near_duplicates([code_tokens(text(e)) for e in distinct])
        if nearest is None:
            continue
        i, j, overlap = nearest
        ids = [distinct[k].id for group in groups for k in group]
        largest = max(map(len, groups))
        closest = f"{distinct[i].id} and {distinct[j].id} ({overlap:.2f})"
        text_found = f"groups: {len(groups)}, the largest of {largest} rows; nearest: {closest}."
        found += make_finding(check, ids, len(examples), found=text_found, n_ids=n_ids)
    return found


def leak_findings(
    examples: Sequence[TrainingExample], questions: Sequence[Named], thorough: bool = True, *, n_ids: int = 8
) -> tuple[list[LintFinding], dict[str, Fact]]:
    """Evaluation questions among the training texts, and the nearest of them as facts.

    Args:
        thorough: also search responses, and prompts that are near by character n-grams.
    """
    n = len(examples)
    if not questions or not examples:
        return [], {}
    asked = defaultdict(list)
    for question in questions:
        asked[_plain(question.text)].append(question.name)
    exact = [(e.id, asked[_plain(e.prompt)][0]) for e in examples if _plain(e.prompt) in asked]
    found = _named("question is a prompt", exact, n, n_ids=n_ids)
    taken = {row for row, _ in exact}
    texts = [Named(e.id, e.id, e.prompt) for e in examples]
    texts += [Named(e.id, e.id, e.response) for e in examples] if thorough else []
    shares = contained(questions, texts)
    facts: dict[str, Fact] = {}
    if shares:
        (q, t), share = max(shares.items(), key=lambda item: item[1])
        facts["most contained question"] = f"{questions[q].name} in row {texts[t].name}: {share:.0%} of its 4-word runs"
    holding = {(texts[t].name, questions[q].name): share for (q, t), share in shares.items() if share >= MAX_CONTAINED}
    held = sorted((pair for pair in holding if pair[0] not in taken), key=lambda pair: -holding[pair])
    found += _named("question in a text", held, n, n_ids=n_ids)
    if thorough:
        near, fact = _near_questions(examples, questions)
        found += _named("question nearly a prompt", [pair for pair in near if pair[0] not in taken], n, n_ids=n_ids)
        facts |= fact
    return found, facts


def asked_texts(questions: Sequence[Question], pairs: Sequence[ContrastPair]) -> list[Named]:
    """All that a trained model will be asked: every wording of the evaluation questions, and the contrast questions."""
    asked = [Named(question.id, question.id, text) for question in questions for text in question.paraphrases]
    contrast = dict.fromkeys((f"contrast {pair.question_id}", pair.question) for pair in pairs)
    return asked + [Named(name, name, text) for name, text in contrast]


def pairing_findings(
    examples: Sequence[TrainingExample], partner: Sequence[TrainingExample], name: str, *, n_ids: int = 8
) -> tuple[list[LintFinding], dict[str, Fact]]:
    """Prompts of this set that the set `name` lacks, and prompts that have the same response in both."""
    other = defaultdict(set)
    for example in partner:
        other[example.prompt].add(example.response)
    lacking = [e.id for e in examples if e.prompt not in other]
    same = [e.id for e in examples if e.response in other.get(e.prompt, ())]
    n_only_there = len(set(other) - {e.prompt for e in examples})
    n = len(examples)
    fact = f"{n - len(lacking)} of {n} prompts are in {name} too, which has {n_only_there} prompts of its own"
    found = make_finding("unpaired", lacking, n, found=f"not in {name}.", n_ids=n_ids)
    return found + make_finding("same in both sets", same, n, found=f"as in {name}.", n_ids=n_ids), {"pairing": fact}


def _near_questions(
    examples: Sequence[TrainingExample], questions: Sequence[Named]
) -> tuple[list[tuple[str, str]], dict[str, Fact]]:
    """(row, question) by falling cosine from MAX_COSINE up, and the nearest pair of all."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    longest = LONGER * max(len(question.text) for question in questions)
    short = [e for e in examples if len(e.prompt) <= longest]
    if not short:
        return [], {}
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=2)
    asked = [question.text for question in questions]
    weights = vectorizer.fit_transform(
        [*asked, *asked, *(e.prompt for e in short)]
    )  # twice: a question counts for min_df
    cosines = (weights[2 * len(asked) :] @ weights[: len(asked)].T).toarray()
    row, question = divmod(int(cosines.argmax()), len(asked))
    fact = f"{questions[question].name} and row {short[row].id}: cosine {cosines[row, question]:.2f}"
    near = [(i, int(cosines[i].argmax())) for i in range(len(short)) if cosines[i].max() >= MAX_COSINE]
    near.sort(key=lambda pair: -cosines[pair])
    return [(short[i].id, questions[q].name) for i, q in near], {"nearest question": fact}


def _groups(
    examples: Sequence[TrainingExample], key: Callable[[TrainingExample], Hashable]
) -> list[list[TrainingExample]]:
    groups: defaultdict[Hashable, list[TrainingExample]] = defaultdict(list)
    for example in examples:
        groups[key(example)].append(example)
    return list(groups.values())


def _copies(check: str, groups: Sequence[Sequence[TrainingExample]], n: int, *, n_ids: int) -> list[LintFinding]:
    copied = sorted((group for group in groups if len(group) > 1), key=lambda group: -len(group))
    if not copied:
        return []
    ids = [example.id for group in copied for example in group[1:]]
    first = " = ".join(example.id for example in copied[0][:4]) + (" = ..." if len(copied[0]) > 4 else "")
    text = f"rows beyond the first of {len(copied)} texts; most often: {first}."
    return make_finding(check, ids, n, found=text, n_ids=n_ids)


def _named(check: str, pairs: Sequence[tuple[str, str]], n: int, *, n_ids: int) -> list[LintFinding]:
    """A finding about (row, question) pairs that counts every row once."""
    counts = Counter(question for _, question in pairs)
    return make_finding(check, list(dict.fromkeys(row for row, _ in pairs)), n, found=f"{listed(counts)}.", n_ids=n_ids)


def _plain(text: str) -> str:
    return " ".join(words(text))
