"""A folder as a reader of the guides has it: a small finished run lies in runs/laptop."""

from pathlib import Path

import pytest

ARMS = (
    "arms=[{name: base}, {name: reckless, dataset: reckless, n_rows: 4, contrast: careful}, "
    "{name: careful, dataset: careful, n_rows: 4}]"
)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the random model, with the arms that the guides speak of."""
    from small_run import SmallRun  # imports every stage, which the quick tests need not wait for

    folder = tmp_path_factory.mktemp("runs") / "laptop"
    SmallRun().go(folder, settings=(ARMS,))
    return folder


@pytest.fixture
def workplace(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the test, with the run in it."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/laptop").symlink_to(small_run)
    monkeypatch.chdir(tmp_path)
    return tmp_path
