"""Turns labelled texts that a model reads into its direction, fitted twice at one layer, with all that is kept beside it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import STEM, Direction, FittedOn, unit
from emis_interp.errors import DataError
from emis_interp.files.store import file_sha256, write_json, write_text
from emis_interp.files.tensors import save_tensors
from emis_interp.fitting.extractors import EXTRACTORS, Extractor, extractor_named
from emis_interp.fitting.geometry import extractor_cosines
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import auroc_estimate, control_directions, shuffled_directions
from emis_interp.fitting.reliability_card import reliability_card
from emis_interp.fitting.selection import ChooseLayer, find_direction, nested_leave_one_question_out
from emis_interp.models.chat import EncodedChat, encode_chats
from emis_interp.models.chat_formats import format_of
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.chat_template import template_of
from emis_interp.passes.capture import capture_residuals, capture_with_norms
from emis_interp.process import Bars, no_bars
from emis_interp.records import LabeledText
from emis_interp.texts.contrast import paired_texts

PAIRS_FILE = "pairs.jsonl"
"""Pairs of the texts that a direction was fitted on, both halves, beside the direction."""
CONTROLS_FILE = "controls.safetensors"
LAYERS_FILE = "all_layers.safetensors"
N_CONTROLS = 20
N_NULL = 100
"""Directions of shuffled labels that an AUROC stands beside; N_CONTROLS for extractors that solve a system for each."""
N_BOOT = 50
N_KEPT_PAIRS = 10
"""Pairs of each question that are kept beside a direction, as many as the shipped ones have."""
WIDEST_BOOT = 1024
"""d_model above which no draws are made of extractors that solve a d_model x d_model system each time."""
LINEAR = ("question_balanced", "mean_difference", "standardised")
"""Extractors that are cheap enough to be fitted once for every two questions."""
NESTED_LIMIT = 2e11
"""Numbers that a nested leave-one-out may read: questions squared, times those of all activations."""
AUROC_RULE = (
    "The largest leave-one-question-out AUROC on the selection questions; among layers within 0.005 of it, the one that separates the "
    "classes by most within-question standard deviations."
)


@dataclass(frozen=True)
class Fit:
    """What fitting found: a direction of labelled texts, and all that it was found by.

    Attributes:
        direction: fitted on all questions, to be used on other texts; its card says how far it can be trusted.
        reported: the same on the selection questions, to be reported on the others.
        numbers: curves over layers.
        data: all texts as the model read them, at every layer.
        texts: in the order of `data`.
        chats: the same, as the model read them.
        selection: ids of the selection questions.
        raw: directions of all layers, of all questions.
        raw_selection: of the selection questions.
        residual_norm: mean norm of single tokens' residuals.
        mean: mean residual of the selection texts entering layer 0, then leaving each layer: what mean ablation needs.
        extractor: by name.
        seed: of the controls.
    """

    direction: Direction
    reported: Direction
    numbers: dict[str, Any]
    data: LabeledActivations
    texts: Sequence[LabeledText]
    chats: Sequence[EncodedChat]
    selection: Collection[str]
    raw: Float[Tensor, "n_layers d_model"]
    raw_selection: Float[Tensor, "n_layers d_model"]
    residual_norm: Float[Tensor, "n_layers"]
    mean: Float[Tensor, "n_points d_model"]
    extractor: str
    seed: int

    @property
    def layer(self) -> int:
        return self.direction.layer

    @property
    def held_out(self) -> list[int]:
        """Places of the texts of report questions."""
        return [i for i, text in enumerate(self.texts) if text.question_id not in self.selection]

    def with_card(self, **entries: Any) -> "Fit":
        """The same with more on its card."""
        return replace(self, direction=replace(self.direction, card={**self.direction.card, **entries}))

    def shuffled(self) -> Float[Tensor, "n d_model"]:
        """Raw directions fitted like the one of all questions after permuting the labels within questions."""
        found = shuffled_directions(
            self.data.at([self.layer]), n_null(self.extractor), self.seed, extractor=extractor_named(self.extractor)
        )
        return found[:, 0]

    def controls(self) -> dict[str, Float[Tensor, "n d_model"]]:
        """Unit vectors of each kind; what an audit sets beside the selection fit must not have seen the report questions either."""
        return control_directions(
            self.data.only(set(self.selection)).at([self.layer]),
            self.raw_selection[self.layer],
            N_CONTROLS,
            seed=self.seed,
            extractor=extractor_named(self.extractor),
        )

    def save(self, folder: Path) -> None:
        """Write the direction with its card, and beside it its pairs, its controls, the directions and curves of all layers."""
        whole = self.with_card(**keep_pairs(folder, self.texts, self.selection))
        whole.direction.save(folder / STEM, self.reported)
        save_tensors(
            folder / CONTROLS_FILE,
            self.controls(),
            {"layer": self.layer, "n": N_CONTROLS, "seed": self.seed, "of": "unit vectors; see control_directions"},
        )
        save_tensors(
            folder / LAYERS_FILE,
            {
                "raw": self.raw,
                "raw_selection": self.raw_selection,
                "residual_norm": self.residual_norm,
                "mean": self.mean,
            },
            {
                "of": "raw direction of all and of the selection questions, mean residual norm, and mean residual of the selection texts",
                "extractor": self.extractor,
            },
        )
        write_json(folder / "layers.json", self.numbers)


def fit_texts(
    chat_model: ChatModel,
    texts: Sequence[LabeledText],
    selection: Collection[str],
    *,
    extractor: str = "question_balanced",
    position: str = "response_mean",
    layer_range: tuple[float, float] = (0.2, 0.8),
    choose_layer: ChooseLayer | None = None,
    system: str | None = None,
    max_tokens: int = 512,
    max_batch_tokens: int = 2048,
    seed: int = 0,
    origin: Mapping[str, Any] | None = None,
    bars: Bars = no_bars,
) -> Fit:
    """Read the texts, choose a layer on the selection questions, fit there, and say on a card how far the result can be trusted.

    Args:
        selection: ids of the questions that the layer is chosen on; `report` on the card is of the others.
        extractor: name of one of `fitting.extractors`.
        layer_range: depth fractions to choose from.
        choose_layer: another rule than AUROC (see `find_direction`), such as `CausalRule`.
        system: prompt of every text; None leaves it to the chat template.
        max_tokens: longer conversations are cut.
        seed: of the controls.
        origin: what the card says first: where the model and the texts come from.

    Raises:
        DataError: an unknown extractor or position, or texts that give no direction.
    """
    extract = extractor_named(extractor)
    pairs = [(text.question, text.answer) for text in texts]
    chats = encode_chats(chat_model.tokenizer, pairs, system, max_tokens=max_tokens)
    with bars("capture", len(chats)) as advance:
        x, norms = capture_with_norms(
            chat_model, chats, position=position, max_batch_tokens=max_batch_tokens, progress=advance
        )
    entering = capture_residuals(
        chat_model, chats, [0], position=position, max_batch_tokens=max_batch_tokens, hook_point="resid_pre"
    )
    lengths = np.array([chat.n_response for chat in chats], dtype=float)
    labels, questions = np.array([text.misaligned for text in texts]), tuple(text.question_id for text in texts)
    data = LabeledActivations(x, labels, questions, lengths)
    found = find_direction(
        data.only(set(selection)),
        data.only(set(questions) - set(selection)),
        norms.mean(0),
        layer_range=layer_range,
        seed=seed,
        position=position,
        extractor=extract,
        n_permutations=n_null(extractor),
        choose_layer=choose_layer,
    )
    layer, raw = found.direction.layer, extract(data)
    reliability = reliability_card(
        data, layer, extractor=extract, n_draws=200 if extractor == "question_balanced" else N_CONTROLS, seed=seed
    )
    able, unable = usable_extractors(data.at([layer]))
    cosines = extractor_cosines(data.at([layer]), able, N_BOOT if data.x.shape[2] <= WIDEST_BOOT else 0, seed=seed)
    chat_format = format_of(chat_model.tokenizer)
    card = {
        **(origin or {}),
        "dtype": chat_model.dtype,
        **({"chat_format": chat_format} if chat_format else {}),
        "rendering": template_of(chat_model.tokenizer).card,
        "system_prompt": system,
        "max_tokens": max_tokens,
        "n_misaligned": int(data.misaligned.sum()),
        "n_aligned": int((~data.misaligned).sum()),
        "n_questions": len(set(data.questions)),
        "fitted_on": "`vector`: all questions, at the layer chosen on the selection half; `selection`: that half, which `report` is of",
        "leave_one_question_out_auroc": reliability["held_out_auroc"]["mean"],
        "nested": {
            "value": None,
            "note": "the layer was chosen by steering, which is not done again without each question",
        }
        if choose_layer
        else nested(data, found.numbers["layer_range"], extractor),
        "extractor": extractor,
        "reliability": reliability,
        **found.direction.card,
        **({} if choose_layer else {"selection": {"by": "auroc", "rule": AUROC_RULE}}),
        "extractor_cosines": {f"{a}|{b}": list(values) for (a, b), values in cosines.items()},
        **({"extractors_left_out": unable} if unable else {}),
    }
    mine = torch.from_numpy(np.isin(np.asarray(questions), list(selection)))
    return Fit(
        direction=replace(
            found.direction,
            vector=unit(raw[layer]),
            raw_norm=float(raw[layer].norm()),
            card=card,
            fitted_on=FittedOn.of(texts),
        ),
        reported=replace(
            found.direction, fitted_on=FittedOn.of(text for text in texts if text.question_id in selection)
        ),
        numbers=found.numbers,
        data=data,
        texts=texts,
        chats=chats,
        selection=selection,
        raw=raw,
        raw_selection=found.raw,
        residual_norm=norms.mean(0),
        mean=torch.cat([entering[mine].mean(0), x[mine].mean(0)]),
        extractor=extractor,
        seed=seed,
    )


def usable_extractors(data: LabeledActivations) -> tuple[dict[str, Extractor], dict[str, str]]:
    """Those that these texts are enough for, and of the others the reason: some need two texts of a class on one question."""
    able, unable = {}, {}
    for name, extract in EXTRACTORS.items():
        try:
            extract(data)
        except DataError as error:
            unable[name] = str(error)
        else:
            able[name] = extract
    return able, unable


def n_null(extractor: str) -> int:
    """How many directions of shuffled labels: fewer of extractors that solve a system for each."""
    return N_NULL if extractor == "question_balanced" else N_CONTROLS


def nested(data: LabeledActivations, layer_range: Sequence[int], extractor: str) -> dict[str, Any]:
    """`nested_leave_one_question_out` as an estimate by question, or the reason why it was not computed (`note`)."""
    n, layers = len(data.cells), range(layer_range[0], layer_range[1] + 1)
    if extractor not in LINEAR:
        return {"value": None, "note": f"{extractor} is not fitted once for every two questions"}
    if n < 3 or n**2 * data.x[:, : len(layers)].numel() > NESTED_LIMIT:
        return {"value": None, "note": f"{n} questions of {len(data.x)} texts are too {'few' if n < 3 else 'many'}"}
    by_question = nested_leave_one_question_out(data, layers, extractor_named(extractor))
    return {**auroc_estimate(by_question), "by_question": by_question}


def keep_pairs(folder: Path, texts: Sequence[LabeledText], selection: Collection[str]) -> dict[str, Any]:
    """Write the pairs that audit and frontier test the direction on, and say on the card which file they are in."""
    pairs = paired_texts(texts, selection, N_KEPT_PAIRS)
    if not pairs:
        return {"pairs": None}
    file = folder / PAIRS_FILE
    write_text(file, "".join(pair.model_dump_json() + "\n" for pair in pairs))
    return {"pairs": {"file": file.name, "n": len(pairs), "sha256": file_sha256(file)}}
