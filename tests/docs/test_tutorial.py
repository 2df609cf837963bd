"""The tutorial runs from its first block to its last, and prints what it says that it prints."""

from pathlib import Path
from typing import Any

import pytest
from guide_blocks import Block, differences, python_blocks, run_block

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
TOLERANCE: Any = {"absolute": 0.03, "relative": 0.1}
"""bfloat16 and float32, and other numbers of threads, agree within it."""


@pytest.mark.slow
def test_the_tutorial_prints_what_it_says(workplace: Path) -> None:
    blocks, names = python_blocks(TUTORIAL), {}
    wrong = [line for block in blocks for line in differences(block, run_block(block, names), **TOLERANCE)]
    assert sum(block.output is not None for block in blocks) > 8
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("said", "n_wrong"),
    [
        ("+0.2 fitted +0.19\n", 0),
        ("+0.2 fitted +0.21\n", 0),
        ("+0.2 fitted +0.29\n", 1),
        ("+0.2 random +0.19\n", 1),
        ("+0.2 fitted +0.19\nmore\n", 1),
        ("", 1),
    ],
)
def test_another_number_or_word_than_the_guides_is_named(said: str, n_wrong: int) -> None:
    found = differences(Block("guide.md:1", "", "+0.2 fitted +0.19\n"), said, **TOLERANCE)
    assert len(found) == n_wrong and all("guide.md:1" in line for line in found)


def test_every_output_of_the_tutorial_belongs_to_a_block() -> None:
    text = TUTORIAL.read_text("utf-8")
    assert text.count("```output") == sum(block.output is not None for block in python_blocks(TUTORIAL))
    assert text.count("```python") == len(python_blocks(TUTORIAL))
