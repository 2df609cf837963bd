"""Organisms of prevention: a model that the second training starts from is whole."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from training.studies.prevention_organisms import save_whole


class Part:
    """A model or tokenizer whose saving is killed half way, `n_kills` times."""

    def __init__(self, name: str, n_kills: int) -> None:
        self.name, self.n_kills = name, n_kills

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / f"{self.name}.json").write_text("")
        self.n_kills -= 1
        if self.n_kills >= 0:
            raise KeyboardInterrupt
        (folder / f"{self.name}.safetensors").write_text("")


@pytest.mark.parametrize("kills", [(1, 0), (0, 1), (1, 1)])
def test_a_model_that_was_killed_while_it_was_saved_is_saved_anew(tmp_path: Path, kills: tuple[int, int]) -> None:
    """The second training of `realign` starts from it, and `config.json` is written first."""
    chat_model: Any = Namespace(model=Part("config", kills[0]), tokenizer=Part("tokenizer", kills[1]))
    for _ in range(sum(kills)):
        with pytest.raises(KeyboardInterrupt):
            save_whole(chat_model, tmp_path / "start")
        assert not (tmp_path / "start").exists()
    save_whole(chat_model, tmp_path / "start")
    assert len(list((tmp_path / "start").iterdir())) == 4 and len(list(tmp_path.iterdir())) == 1
