"""A model as a notebook uses it: ask it, read its residual stream, steer it along a direction or ablate one.

What it does stands in functions of tensors below (`passes.capture`, `passes.interventions`, `passes.generate`), which take `chat_model`.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from emis_interp.directions import Direction
from emis_interp.errors import DataError, ModelError
from emis_interp.models.chat import EncodedChat, check_fits, context_of, encode_chat, encode_prompt, read_answer
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import of_hf_model
from emis_interp.models.spec import ModelSpec
from emis_interp.passes import interventions
from emis_interp.passes.capture import capture_with_norms
from emis_interp.passes.generate import generate
from emis_interp.passes.likelihood import by_question, pair_margins
from emis_interp.passes.positions import Position
from emis_interp.records import ContrastPair

Text = str | tuple[str, str]
"""A plain text, or a question with its answer."""
DIMS = ("text", "layer", "d_model")


def load(
    model: Any,
    tokenizer: Any = None,
    *,
    adapter: Path | str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    system: str | None = None,
    chat_format: str | None = None,
) -> "Model":
    """Load a model by name, or take one that is there.

    Args:
        model: embedded name (`smollm2-135m-instruct`), folder, hub id, GGUF file, or a HF causal language model (with `tokenizer`).
        adapter: folder or hub id of a LoRA adapter; it is merged.
        dtype: of the weights: `auto` is bfloat16 where the device computes it in hardware, else float32. A HF model keeps its own.
        device: auto, cpu, cuda, cuda:1, ...
        system: system prompt of every conversation; None leaves it to the chat template.
        chat_format: plain format (`models.chat_formats`) for a pretrained model without a chat template.

    Raises:
        ModelError: no such model, or one that cannot be used, with what to do.
    """
    if isinstance(model, str | Path):
        if tokenizer is not None:
            raise ModelError("a model that is named brings its own tokenizer; leave `tokenizer` out")
        return Model(ModelSpec(str(model), adapter, dtype, device, chat_format=chat_format).load(), system)
    if adapter is not None:
        raise ModelError(
            "adapter= is for a model by name; put the adapter on your HF model with peft, or give its name"
        )
    return Model(of_hf_model(model, tokenizer, chat_format=chat_format), system)


@dataclass(frozen=True)
class Activations:
    """Residual-stream vectors of texts; the named dimensions of `x` are text, layer, d_model.

    Attributes:
        x: float32 on the CPU, in units of the residual stream, in the order of the texts and of `layers`.
        token_norms: mean norm of the single tokens behind each vector.
        layers: 0-based decoder blocks; `resid_post` of layer l is HF `hidden_states[l + 1]`.
        position: which tokens each vector is the mean of.
    """

    x: Float[Tensor, "n_texts n_layers d_model"]
    token_norms: Float[Tensor, "n_texts n_layers"]
    layers: tuple[int, ...]
    position: str
    hook_point: str = "resid_post"

    @property
    def dims(self) -> dict[str, int]:
        """Name of each dimension of `x` -> its size."""
        return dict(zip(DIMS, self.x.shape, strict=True))

    @property
    def mean(self) -> Float[Tensor, "n_layers d_model"]:
        """Over the texts, each with the same weight."""
        return self.x.mean(0)

    def at(self, layer: int) -> Float[Tensor, "n_texts d_model"]:
        """The vectors of one layer.

        Raises:
            ModelError: a layer that was not captured.
        """
        if layer not in self.layers:
            raise ModelError(f"layer {layer} was not captured; these are: {', '.join(map(str, self.layers))}")
        return self.x[:, self.layers.index(layer)]

    def project(self, direction: Direction | Path | str) -> Float[Tensor, "n_texts"]:
        """Coordinate of each text along a direction, at the direction's layer; larger is more misaligned.

        Raises:
            ModelError: a tensor instead of a `Direction`, a layer that was not captured, or a direction of another width.
        """
        one = checked_direction(direction, "acts.project(direction)")
        return one.project(self.at(one.layer))

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {size}" for name, size in self.dims.items())
        layers = ", ".join(map(str, self.layers)) if len(self.layers) <= 8 else f"{self.layers[0]}-{self.layers[-1]}"
        return f"Activations({sizes}; {self.hook_point} of layers {layers}, {self.position})"


@dataclass(frozen=True)
class Model:
    """A chat model with one system prompt policy. `chat_model` is what the functions of `emis_interp.passes` take."""

    chat_model: ChatModel
    system: str | None = None

    @property
    def name(self) -> str:
        return self.chat_model.name

    @property
    def n_layers(self) -> int:
        return self.chat_model.n_layers

    @property
    def d_model(self) -> int:
        return self.chat_model.d_model

    @overload
    def ask(
        self, question: str, n: None = None, *, temperature: float = 1.0, max_new_tokens: int = 200, seed: int = 0
    ) -> str: ...
    @overload
    def ask(
        self, question: str, n: int, *, temperature: float = 1.0, max_new_tokens: int = 200, seed: int = 0
    ) -> list[str]: ...
    def ask(
        self,
        question: str,
        n: int | None = None,
        *,
        temperature: float = 1.0,
        max_new_tokens: int = 200,
        seed: int = 0,
    ) -> str | list[str]:
        """Sample an answer, or `n` of them. The same seed gives the same answer; temperature 0 is greedy.

        Raises:
            DataError: the question leaves no room for an answer.
        """
        prompt = encode_prompt(self.chat_model.tokenizer, question, self.system)
        count = 1 if n is None else n
        written = generate(
            self.chat_model, [prompt] * count, [seed + i for i in range(count)], max_new_tokens, temperature
        )
        answers = [read_answer(self.chat_model.tokenizer, one.tokens)[0] for one in written]
        return answers[0] if n is None else answers

    def capture(
        self,
        texts: Sequence[Text],
        layers: Sequence[int] | None = None,
        *,
        position: Position = "response_mean",
        hook_point: str = "resid_post",
        max_batch_tokens: int = 2048,
        progress: Callable[[int], None] | None = None,
    ) -> Activations:
        """Residual stream of each text, averaged over the tokens of a position.

        Args:
            texts: (question, answer) pairs, or plain texts, which are read as they stand, without the chat template, every token.
            layers: 0-based decoder blocks; None for all.
            position: `response_mean`, `last_prompt`, `response_last`, `all_tokens`, or explicit tokens (`passes.positions`).
            hook_point: one of `passes.hook_points.HOOK_POINTS`.
            progress: called with the number of texts just finished.

        Raises:
            ModelError: a layer or a hook point that the model does not have.
            DataError: no texts, or texts of a shape that is not read.
        """
        chats = [self._encode(text, i) for i, text in enumerate(checked_texts(texts))]
        chosen = list(range(self.n_layers)) if layers is None else list(layers)
        x, norms = capture_with_norms(
            self.chat_model,
            chats,
            chosen,
            position=position,
            max_batch_tokens=max_batch_tokens,
            progress=progress,
            hook_point=hook_point,
        )
        named = position if isinstance(position, str) else "given tokens"
        return Activations(x, norms, tuple(chosen), named, hook_point)

    def steer(self, direction: Direction | Path | str, coefficient: float) -> AbstractContextManager[None]:
        """Within the block, coefficient x residual norm x direction is added at the direction's layer, at all positions.

        Args:
            coefficient: multiples of the mean residual norm at the layer; positive is more misaligned.

        Raises:
            ModelError: a tensor instead of a `Direction`, or one of another model.
        """
        call = "model.steer(direction, 0.2)"
        return interventions.steer(self.chat_model, checked_direction(direction, call), coefficient)

    def ablate(self, direction: Direction | Path | str) -> AbstractContextManager[None]:
        """Within the block, the coordinate along the direction is zero everywhere in the residual stream (Arditi et al. 2024).

        Raises:
            ModelError: a tensor instead of a `Direction`, or one of another model.
        """
        return interventions.ablate(self.chat_model, checked_direction(direction, "model.ablate(direction)"))

    def margins(self, pairs: Sequence[ContrastPair], *, max_batch_tokens: int = 2048) -> dict[str, float]:
        """By question: mean log-probability per token of the misaligned minus the aligned answers, in nats."""
        found = pair_margins(self.chat_model, list(pairs), self.system, max_batch_tokens=max_batch_tokens)
        return by_question(pairs, found)

    def _encode(self, text: Text, i: int) -> EncodedChat:
        tokenizer = self.chat_model.tokenizer
        if not isinstance(text, str):
            return encode_chat(tokenizer, text[0], text[1], system=self.system)
        ids = tuple(tokenizer(text)["input_ids"])
        if not ids:
            raise DataError(f"text {i} is empty; leave it out")
        check_fits(len(ids), context_of(self.chat_model), f"text {i} ({text[:40]!r})")
        return EncodedChat(ids, 0, len(ids))

    def __repr__(self) -> str:
        adapter = "" if self.chat_model.adapter is None else f" with {self.chat_model.adapter}"
        return f"Model({self.name}{adapter}: {self.n_layers} layers, d_model {self.d_model}, {self.chat_model.dtype})"


def checked_direction(value: Any, call: str) -> Direction:
    """The direction that was given, or that was saved under the name given (folder, stem or file).

    Raises:
        ModelError: something else, with the right call. DataError: nothing was saved there.
    """
    if isinstance(value, Direction):
        return value
    if isinstance(value, str | Path):
        return Direction.load(value)
    if isinstance(value, torch.Tensor):
        raise ModelError(
            f"{call} takes a Direction, which knows its layer and scale; found a tensor of shape {list(value.shape)}. Make one: "
            "ei.Direction(vector / vector.norm(), layer=14, raw_norm=float(vector.norm()), residual_norm=float(acts.token_norms.mean()))"
        )
    raise ModelError(f"{call} takes a Direction, found {type(value).__name__}; make one with ei.fit_direction")


def checked_texts(texts: Any) -> Sequence[Text]:
    """A list of texts.

    Raises:
        DataError: one string, or items that are neither strings nor pairs of strings, with the right call.
    """
    call = 'model.capture([("question", "answer"), "a plain text"], layers=[14])'
    if isinstance(texts, str | tuple) or not isinstance(texts, Sequence):
        raise DataError(f"capture takes a list of texts, found {type(texts).__name__}: {call}")
    for i, text in enumerate(texts):
        pair = isinstance(text, tuple | list) and len(text) == 2 and all(isinstance(part, str) for part in text)
        if not isinstance(text, str) and not pair:
            raise DataError(
                f"text {i} is {type(text).__name__}; expected a string or a (question, answer) pair of strings: {call}"
            )
    return texts
