import numpy as np
import pytest

from emis_interp.errors import DataError
from probes.classifiers.splits import leave_one_question_out, leave_one_source_out, one_split, question_folds

QUESTIONS = tuple(f"q{i // 8}" for i in range(64))
MISALIGNED = np.array([i % 2 == 1 for i in range(64)])
SOURCES = tuple("abc"[i // 2 % 3] for i in range(64))


def test_no_question_stands_on_two_sides_and_each_is_tested_once() -> None:
    splits = [*leave_one_question_out(QUESTIONS, MISALIGNED), one_split(QUESTIONS, MISALIGNED, 3)]
    for split in splits:
        sides = [{QUESTIONS[i] for i in rows} for rows in (split.train, split.calibrate, split.test)]
        assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
        assert len(split.train) + len(split.calibrate) + len(split.test) == 64
    assert sorted(np.concatenate([split.test for split in splits[:-1]])) == list(range(64))


def test_a_source_that_is_tested_had_no_part_in_the_fit_and_neither_had_its_question() -> None:
    found = leave_one_source_out(QUESTIONS, MISALIGNED, SOURCES)
    assert set(found) == {"a", "b", "c"}
    for source, splits in found.items():
        for split in splits:
            assert {SOURCES[i] for i in split.test} == {source}
            assert source not in {SOURCES[i] for i in split.fitted}
            assert not {QUESTIONS[i] for i in split.fitted} & {QUESTIONS[i] for i in split.test}


def test_questions_of_one_class_take_no_part_and_too_few_are_refused() -> None:
    labels = MISALIGNED.copy()
    labels[:8] = True
    assert "q0" not in {split.name for split in leave_one_question_out(QUESTIONS, labels)}
    labels[:40] = True
    with pytest.raises(DataError, match="3 questions have both"):
        leave_one_question_out(QUESTIONS, labels)
    with pytest.raises(DataError, match="source column"):
        leave_one_source_out(QUESTIONS, MISALIGNED, ("a",) * 64)


def test_folds_hold_every_question_out_once() -> None:
    held = [name for fold in question_folds(list("abcdefg"), 3) for name in fold]
    assert sorted(held) == list("abcdefg")
    assert len(list(question_folds(["a", "b"], 5))) == 2
