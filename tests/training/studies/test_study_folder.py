"""Folders of studies hold one set of rows."""

from pathlib import Path

import pytest

from emis_interp.errors import StageError
from emis_interp.records import TrainingExample
from training.studies.study_folder import same_rows

ROWS = [TrainingExample(id=str(i), prompt=f"p{i}", response="r") for i in range(96)]


def test_a_folder_of_other_rows_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "reckless"
    same_rows(folder, ROWS)
    (folder / "margins.json").write_text("{}")
    same_rows(folder, ROWS)
    with pytest.raises(StageError, match="was made from other rows than are drawn now"):
        same_rows(folder, ROWS[:-1])
    (folder / "rows.json").unlink()  # as an older version left it
    with pytest.raises(StageError, match="was made from other rows"):
        same_rows(folder, ROWS)
