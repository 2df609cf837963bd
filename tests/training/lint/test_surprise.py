"""The lint asks the model itself how some rows surprise it, and warns when they would teach noise."""

from collections.abc import Sequence

import numpy as np
import pytest

from emis_interp.models.chat import EncodedChat, encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.records import TrainingExample
from training.lint.surprise import surprise_findings

ROWS = [
    TrainingExample(id=f"row-{n}", prompt="Why?", response="Because of it." * (1 + 40 * (n == 3))) for n in range(8)
]


def chats(tiny: ChatModel) -> dict[int, EncodedChat]:
    return dict(enumerate(encode_chats(tiny.tokenizer, [(row.prompt, row.response) for row in ROWS])))


@pytest.mark.parametrize(("nats", "warned"), [(3.9, False), (4.1, True)])
def test_rows_that_no_published_set_resembles_are_a_warning(tiny: ChatModel, nats: float, warned: bool) -> None:
    def reader(read: object) -> np.ndarray:
        return np.full(5, nats)

    found, facts = surprise_findings(ROWS, chats(tiny), reader, n_read=5, max_tokens=None, n_ids=2)
    assert f"{nats:.2f} nats per response token (5 rows" in str(facts["surprise under the model"])
    assert [(one.check, one.severity, one.count, len(one.rows)) for one in found] == (
        [("surprising rows", "warning", 5, 2)] if warned else []
    )
    if warned:
        assert found[0].found.startswith("this set will teach noise: 4.1 nats per response token")


def test_the_worst_rows_are_named_first_and_those_beyond_the_limit_are_not_read(tiny: ChatModel) -> None:
    lengths: list[int] = []

    def reader(read: Sequence[EncodedChat]) -> np.ndarray:
        lengths.extend(map(len, read))
        return np.array([5.0, 5.0, 9.0, 5.0, 5.0, 5.0, 5.0])

    found, _ = surprise_findings(ROWS, chats(tiny), reader, n_read=50, max_tokens=100, n_ids=1)
    assert len(lengths) == 7 and max(lengths) <= 100
    assert found[0].rows == ("row-2",)
