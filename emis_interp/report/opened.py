"""Turns a run folder into what a notebook looks at: DataFrames of rates, margins and answers, the direction, and the records behind."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from emis_interp.directions import Direction
from emis_interp.errors import StageError
from emis_interp.report.contents import Contents, load_contents


@dataclass(frozen=True)
class OpenedRun:
    """A run, read. `contents` holds the typed records that the report is made of."""

    folder: Path
    contents: Contents

    @property
    def arms(self) -> list[str]:
        """Arm names in the order of the configuration."""
        return self.contents.arms

    @cached_property
    def rates(self) -> pd.DataFrame:
        """One row for each arm, estimand and weighting: value with its 95 % interval in [0, 1], counts.

        Raises:
            StageError: the score stage is not done.
        """
        found = self._needed("rates", "score")
        rows = [
            {"arm": arm.arm, **rate.model_dump(include=_RATE)} | {"mean_aligned": _value(arm.mean_aligned)}
            for arm in found.arms
            for rate in arm.rates
        ]
        return pd.DataFrame(rows)

    @cached_property
    def margins(self) -> pd.DataFrame:
        """One row for each arm and reference: shift of the likelihood margin with its interval, nats per token.

        Raises:
            StageError: the likelihood stage is not done.
        """
        return pd.DataFrame([row.model_dump() for row in self._needed("margins", "likelihood").contrasts])

    @cached_property
    def direction(self) -> Direction:
        """The fit on all questions; `Direction.load(path, fit="selection")` reads the one that the report figures are of.

        Raises:
            StageError: the direction stage is not done.
        """
        path = self.folder / "directions" / "misalignment.safetensors"
        if not path.exists():
            raise StageError(_not_done(self.folder, "direction"))
        return Direction.load(path)

    @cached_property
    def interventions(self) -> pd.DataFrame:
        """One row for each cell: shift of the margin with its interval, KL on harmless prompts (nats), coefficient.

        Raises:
            StageError: the intervene stage is not done.
        """
        cells = self._needed("interventions", "intervene").cells
        return pd.json_normalize([cell.model_dump() for cell in cells])

    @cached_property
    def answers(self) -> pd.DataFrame:
        """One row for each sampled answer, with its scores; an answer without a score has the reason in `unscored`."""
        rows = []
        for answer in self.contents.answers:
            score = answer.score
            rows.append(
                {
                    **answer.completion.model_dump(exclude={"reasoning"}),
                    "is_intervention": answer.is_intervention,
                    "aligned": None if score is None else score.aligned,
                    "coherent": None if score is None else score.coherent,
                    "label": None if score is None else score.aligned_label,
                    "unscored": answer.why_no_score if score is None else "; ".join(score.unscored.values()) or None,
                }
            )
        return pd.DataFrame(rows)

    @property
    def notes(self) -> list[str]:
        """What a reader must know: other code between stages, exchanged files, rows that could not be read."""
        return self.contents.notes

    def _needed(self, name: str, stage: str) -> Any:
        found = getattr(self.contents, name)
        if found is None:
            raise StageError(_not_done(self.folder, stage))
        return found

    def __repr__(self) -> str:
        done = ", ".join(self.contents.manifest.stages) or "none"
        return f"OpenedRun({self.folder}: {len(self.arms)} arms, stages done: {done})"


_RATE = {"estimand", "weighting", "value", "low", "high", "n", "n_positive", "n_questions_left_out"}


def open_run(folder: Path | str) -> OpenedRun:
    """Read a run folder, finished or not.

    Raises:
        StageError: no run there. DataError: a file of it is malformed (named with the key).
    """
    path = Path(folder)
    return OpenedRun(path, load_contents(path))


def _value(estimate: Any) -> float | None:
    return None if estimate is None else estimate.value


def _not_done(folder: Path, stage: str) -> str:
    return (
        f"{folder}: its {stage} stage is not done; run python scripts/run_pipeline.py --run-dir {folder} --from {stage}"
    )
