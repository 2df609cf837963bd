"""Where tensors that were saved under a name are looked for: one rule for directions, probes and what else has a folder of its own."""

from pathlib import Path

import pytest
import torch

from emis_interp.directions import direction_file
from emis_interp.files.tensors import save_tensors, saved_file
from probes.classifiers.probe import probe_file

FINDERS = {"direction": direction_file, "probe": probe_file}


@pytest.mark.parametrize("stem", FINDERS)
@pytest.mark.parametrize("form", ["", "{stem}", "{stem}.safetensors", "{stem}.json"])
def test_folder_stem_and_files_name_the_same_tensors(tmp_path: Path, stem: str, form: str) -> None:
    folder = tmp_path / "qwen2.5"
    file = folder / f"{stem}.safetensors"
    save_tensors(file, {"x": torch.zeros(1)}, {})
    given = folder / form.format(stem=stem)
    assert FINDERS[stem](given) == saved_file(str(given), stem) == file


@pytest.mark.parametrize("stem", FINDERS)
def test_directions_and_probes_are_looked_for_alike(tmp_path: Path, stem: str) -> None:
    """A stem goes before a folder of its name, a card's name may be a stem; where nothing is, the likeliest place is named."""
    find, folder = FINDERS[stem], tmp_path / "d"
    folder.mkdir()
    assert find(folder) == folder / f"{stem}.safetensors"
    assert find(tmp_path / "e") == tmp_path / "e.safetensors"
    assert find(tmp_path / "e.json") == tmp_path / "e.safetensors"
    save_tensors(tmp_path / "e.json.safetensors", {"x": torch.zeros(1)}, {})
    assert find(tmp_path / "e.json") == tmp_path / "e.json.safetensors"
    save_tensors(folder / f"{stem}.safetensors", {"x": torch.zeros(1)}, {})
    save_tensors(tmp_path / "d.safetensors", {"x": torch.zeros(1)}, {})
    assert find(folder) == tmp_path / "d.safetensors"
