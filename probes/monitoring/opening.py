"""Turns the flags of a verb into a scorer with its model, and a threshold file into a threshold of that scorer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emis_interp.directions import FittedOn
from emis_interp.errors import DataError
from emis_interp.files.store import read_record
from emis_interp.models.chat_model import ChatModel
from emis_interp.probe_results import MonitorThreshold
from probes.loading import model_on
from probes.monitoring.scorers import TokenScorer, card_of, fitted_on, load_scorer, scorer_sha256
from probes.monitoring.settings import ScorerSettings


@dataclass(frozen=True)
class OpenedScorer:
    """A scorer with the model that it is of, and what its card says of the texts it was made from."""

    scorer: TokenScorer
    chat_model: ChatModel
    card: dict[str, Any]
    fitted_on: FittedOn | None

    @classmethod
    def of(cls, settings: ScorerSettings) -> "OpenedScorer":
        """What the flags name.

        Raises:
            DataError: no scorer there, or no model is named.
        """
        scorer, card = load_scorer(settings.direction, settings.fit), card_of(settings.direction)
        return cls(scorer, model_on(card, settings), card, fitted_on(scorer))

    @property
    def sha256(self) -> str:
        return scorer_sha256(self.scorer, self.chat_model.d_model)


def read_threshold(path: Path, opened: OpenedScorer) -> MonitorThreshold:
    """What `calibrate` wrote, for the same scorer.

    Raises:
        DataError: it is damaged, or was made with another scorer (or another fit of it), whose scores have another scale.
    """
    threshold = read_record(path, MonitorThreshold)
    if threshold.scorer_sha256 != opened.sha256:
        raise DataError(
            f"{path}: is the threshold of another scorer ({threshold.scorer}, layer {threshold.layer}, here layer {opened.scorer.layer}, "
            "or another --fit of it); calibrate again with this one"
        )
    return threshold
