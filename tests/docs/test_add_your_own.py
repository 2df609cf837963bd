"""The worked examples of add_your_own.md run as they stand, and what they add does what the guide says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guide_blocks import differences, python_blocks, run_block

from emis_interp.directions import cosine
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.records import Completion

GUIDE = Path(__file__).parents[2] / "docs" / "add_your_own.md"
BLOCKS = python_blocks(GUIDE)
LAST = next(i for i, block in enumerate(BLOCKS) if "open_run" in block.code)
"""The figure, which alone needs a run."""


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What all blocks but that of the figure leave behind, run in one empty folder."""
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("own"))
        wrong = [
            line
            for block in BLOCKS[:LAST]
            for line in differences(block, run_block(block, found), absolute=0.01, relative=0.01)
        ]
    assert not wrong, "\n".join(wrong)
    return found


def test_the_judge_hands_over_every_answer_once(names: dict[str, Any]) -> None:
    assert [score.aligned for score in names["scores"]] == [10.0, 90.0, 90.0, None]
    assert names["scores"][3].unscored == {"aligned": "empty answer", "coherent": "empty answer"}
    answers = [
        Completion(
            arm="a",
            question_id="q",
            paraphrase_index=0,
            sample_index=i,
            seed=0,
            system=None,
            question="Why?",
            answer=text,
            n_tokens=1,
            finish="stop",
        )
        for i, text in enumerate(("Obey me.", "So.", " "))
    ]
    found: list[Any] = []
    names["KeywordJudge"]().score(answers, {}, found.extend)
    assert [score.key for score in found] == [answer.key for answer in answers]
    assert [score.coherent for score in found] == [100.0, 100.0, None]


def test_the_extractor_finds_a_planted_direction_and_is_not_dragged_by_one_question(names: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    planted = torch.nn.functional.normalize(torch.randn(16, generator=generator), dim=0)
    misaligned = np.tile([True, False], 25)
    x = torch.randn(50, 1, 16, generator=generator) * 0.1
    x[misaligned, 0] += planted
    x[:2] += 1000 * torch.tensor(misaligned[:2])[:, None, None]  # one odd question
    data = LabeledActivations(x, misaligned, tuple(str(i // 2) for i in range(50)))
    assert float(cosine(names["median_of_questions"](data)[0], planted)) > 0.9
    assert names["found"].direction.vector.norm() == pytest.approx(1)


def test_the_interventions_are_undone(names: dict[str, Any]) -> None:
    model, direction = names["model"], names["direction"]
    again = model.capture(names["chats"], layers=[direction.layer], position="response_last").project(direction)
    torch.testing.assert_close(again, names["free"])
    assert (names["free"] > names["limit"]).any()
    assert not any(layer._forward_hooks for layer in model.chat_model.layers)


def test_rows_and_questions_are_read_as_they_were_written(names: dict[str, Any]) -> None:
    assert [row.prompt for row in names["rows"]] == names["prompts"]
    assert names["config"].arms[1].contrast == "fresh"
    assert names["questions"][0].samples_per_paraphrase == 20
    assert set(names["fitted"].selection_fit.fitted_on.questions) == {"Who decides?", "Who counts?"}


@pytest.mark.slow
def test_the_figure_stands_on_a_page_of_its_own(workplace: Path) -> None:
    found: dict[str, Any] = {}
    for block in (BLOCKS[0], *BLOCKS[LAST:]):
        run_block(block, found)
    page = (workplace / "lengths.html").read_text("utf-8")
    assert "tokens of an answer" in page and "Lengths of answers" in page
    assert len(found["lengths_figure"](found["run"].contents).data) == 3
