"""Turns activations of aligned and misaligned texts into directions, one per layer, and keeps a direction as a file.

A direction is a unit vector that points from aligned to misaligned, with the norm of the raw difference beside it. A file holds two fits:
`all`, on every question, to be used on other texts; and `selection`, on the selection questions alone, to be reported on the others.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from emis_interp.errors import DataError, ModelError
from emis_interp.files.tensors import load_tensors, save_tensors, saved_file, saved_places, tensors_file
from emis_interp.records import LabeledText

FitName = Literal["all", "selection"]
_COUNTS = {"n_misaligned": "misaligned texts", "n_aligned": "aligned", "n_questions": "questions"}
STEM = "direction"
"""Name of a direction in the folder that is its own."""
_NO_FITS = (
    "{path}: holds one vector and does not say which questions it was fitted on, so nothing may be reported on questions that it may "
    "have seen; fit it again (find_direction.py fit, or run_pipeline.py --from direction), which keeps a fit on the selection questions too"
)


@dataclass(frozen=True)
class FittedOn:
    """The questions whose texts had a part in a vector.

    Attributes:
        questions: their ids, for people.
        wordings: `wording_key` of every wording, which is what counts: ids of two files may clash or differ.
    """

    questions: tuple[str, ...]
    wordings: frozenset[str]

    @classmethod
    def of(cls, texts: Iterable[LabeledText]) -> "FittedOn":
        """Of labelled texts that were all fitted on."""
        found = list(texts)
        ids = tuple(dict.fromkeys(text.question_id for text in found))
        return cls(ids, frozenset(wording_key(text.question) for text in found))

    def has(self, question: str) -> bool:
        """Whether this wording of a question had a part in the vector."""
        return wording_key(question) in self.wordings


def wording_key(question: str) -> str:
    """A hash by which a question is known again, whatever its id, its capitals and its spaces."""
    return hashlib.sha256(" ".join(question.casefold().split()).encode("utf-8")).hexdigest()[:16]


@dataclass(frozen=True, repr=False)
class Direction:
    """A direction in the residual stream.

    Attributes:
        vector: unit vector `[d_model]`, float32, from aligned to misaligned.
        layer: decoder block whose output (`resid_post`) it was found in.
        raw_norm: norm of the raw difference of means, residual-stream units.
        residual_norm: mean norm of single tokens' residuals at that layer; a steering coefficient is in multiples of it.
        position: pooling of the texts that it was fitted on.
        card: where it comes from and how far it can be trusted (model, texts, reliability, controls).
        fitted_on: the questions behind the vector; None where the file does not say (older ones, and those of other programs).
    """

    vector: Float[Tensor, "d_model"]
    layer: int
    raw_norm: float
    residual_norm: float
    position: str = "response_mean"
    card: dict[str, Any] = field(default_factory=dict)
    fitted_on: FittedOn | None = None

    def __repr__(self) -> str:
        """The card in at most five lines."""
        card, lines = (
            self.card,
            [f"{type(self).__name__}: layer {self.layer}, {len(self.vector)} dimensions, {self.position}"],
        )
        if (model := card.get("model")) is not None:
            adapter = f" with {card['adapter']}" if card.get("adapter") else ""
            counts = [f"{card[key]} {name}" for key, name in _COUNTS.items() if key in card]
            lines.append(f"  read from {model}{adapter}" + (f": {', '.join(counts)}" if counts else ""))
        if isinstance(report := card.get("report"), dict) and "auroc" in report:
            limits = f" [{report['low']:.3f}, {report['high']:.3f}]" if report.get("low") is not None else ""
            lines.append(
                f"  AUROC on questions that had no part in it {report['auroc']:.3f}{limits}: {report['verdict']}"
            )
            lines.append(
                f"  random directions {report['random_auroc']:.3f}, shuffled labels {report['shuffled_auroc']:.3f}"
                + (
                    f", cosine of two halves of the selection questions {card['split_half_cosine']:.3f}"
                    if "split_half_cosine" in card
                    else ""
                )
            )
        lines.append(f"  norm {self.raw_norm:.3g}, that of a token's residual {self.residual_norm:.3g}")
        return "\n".join(lines)

    def project(self, residuals: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
        """Coordinates along the direction, in residual-stream units; larger is more misaligned."""
        if residuals.shape[-1] != self.vector.shape[0]:
            raise ModelError(
                f"direction has d_model {self.vector.shape[0]}, activations have {residuals.shape[-1]}; they are of different models"
            )
        return residuals.float() @ self.vector

    def check_unseen(self, questions: Iterable[str]) -> None:
        """Refuse to report on questions (wordings) that the vector was fitted on: there even noise separates the classes.

        Raises:
            DataError: some had a part in the vector, or it is not known which ones had.
        """
        if self.fitted_on is None:
            raise DataError(_NO_FITS.format(path="this direction"))
        asked = list(dict.fromkeys(questions))
        seen = [question for question in asked if self.fitted_on.has(question)]
        if seen:
            raise DataError(
                f"{len(seen)} of the {len(asked)} questions to report on had a part in the direction, where even noise separates the "
                f"classes (the first: {seen[0][:60]!r}); give pairs of other questions, or fit again with these in the report half"
            )

    def save(self, path: Path | str, selection: "Direction | None" = None) -> None:
        """Write `path`.safetensors and its card `path`.json.

        Args:
            selection: the same direction fitted on the selection questions alone, which `load(path, fit="selection")` gives back.

        Raises:
            DataError: `selection` is of another layer, width or position, or either does not say what it was fitted on.
        """
        tensors, fits = {"vector": self.vector}, {}
        rest = {key: value for key, value in self.card.items() if key != "fits"}
        if selection is not None:
            ours, its = ((one.layer, one.position, tuple(one.vector.shape)) for one in (self, selection))
            if ours != its or self.fitted_on is None or selection.fitted_on is None:
                raise DataError(f"two fits of one direction need `fitted_on` and the same place: {ours} and {its}")
            tensors["selection"] = selection.vector.clone()  # a file cannot hold two names of one tensor
            fits = {"fits": {"all": _fit_card(self), "selection": _fit_card(selection)}}
        card = {
            **rest,
            "layer": self.layer,
            "raw_norm": self.raw_norm,
            "residual_norm": self.residual_norm,
            "position": self.position,
            "hook_point": "resid_post",
            "sign": "from aligned to misaligned",
            **fits,
        }
        save_tensors(tensors_file(Path(path)), tensors, card)

    @classmethod
    def load(cls, path: Path | str, fit: FitName = "all") -> "Direction":
        """Read what `save` wrote.

        Args:
            path: the stem that `save` was given, one of the two files, or the folder that find_direction.py fit wrote.
            fit: `all`, the vector to use on texts that had no part in it; `selection`, the one to report on the report questions.

        Raises:
            DataError: a file is missing, damaged, is no direction, or holds no selection fit.
        """
        file = direction_file(path)
        if not file.exists():
            places = " or ".join(map(str, saved_places(path, STEM)))
            raise DataError(
                f"{path}: no saved direction; looked for {places}. Give what find_direction.py fit saved: the folder, the stem or the file"
            )
        tensors, card = load_tensors(file)
        needed = {"layer", "raw_norm", "residual_norm", "position"}
        if "vector" not in tensors or not needed <= card.keys():
            raise DataError(f"{path}: not a direction (expected a tensor `vector` and {sorted(needed)} on its card)")
        own = {*needed, "hook_point", "sign", "tensors", "sha256"}
        rest = {key: value for key, value in card.items() if key not in own}
        whole = cls(tensors["vector"], card["layer"], card["raw_norm"], card["residual_norm"], card["position"], rest)
        if "fits" not in card and fit == "selection":
            raise DataError(_NO_FITS.format(path=path))
        if "fits" not in card:
            return whole
        try:
            described, vector = card["fits"][fit], tensors["vector" if fit == "all" else fit]
            fitted_on = FittedOn(tuple(described["questions"]), frozenset(described["wordings"]))
            return replace(whole, vector=vector, raw_norm=float(described["raw_norm"]), fitted_on=fitted_on)
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: its card describes no fit `{fit}` ({error}); fit the direction again") from None


def _fit_card(direction: Direction) -> dict[str, Any]:
    """What the card says of one fit."""
    assert direction.fitted_on is not None
    return {
        "raw_norm": direction.raw_norm,
        "questions": list(direction.fitted_on.questions),
        "wordings": sorted(direction.fitted_on.wordings),
    }


def direction_file(path: Path | str) -> Path:
    """The tensors of a saved direction (`saved_file`); what else `fit` wrote lies beside them."""
    return saved_file(path, STEM)


def mean_difference(
    x: Float[Tensor, "n_texts *rest"], misaligned: Bool[np.ndarray, "n_texts"]
) -> Float[Tensor, "*rest"]:
    """Mean of the misaligned texts minus mean of the aligned ones."""
    chosen = torch.from_numpy(np.asarray(misaligned, dtype=bool))
    if chosen.all() or not chosen.any():
        raise DataError("a direction needs both misaligned and aligned texts; only one class was given")
    return x[chosen].mean(0) - x[~chosen].mean(0)


def unit(vectors: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    """Each vector divided by its norm; a zero vector is refused."""
    norms = vectors.norm(dim=-1, keepdim=True)
    if not (norms > 0).all():
        raise DataError(
            "a difference of means is zero or not a number; do both classes hold the same texts, or were they read at "
            "`last_prompt`, before the answers differ?"
        )
    return vectors / norms


def cosine(a: Float[Tensor, "... d_model"], b: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
    return torch.nn.functional.cosine_similarity(a.float(), b.float(), dim=-1)


def top_dimensions_share(vector: Float[Tensor, "d_model"], n_top: int = 5) -> float:
    """Share of the squared norm in the `n_top` largest coordinates; near 1 means a few massive dimensions are all there is."""
    squares = vector.float().square()
    return float(squares.topk(n_top).values.sum() / squares.sum())
