"""Keeps interventions that differ from row to row with their rows, where rows are sorted into batches, share a pass or leave early.

Whoever was given `of` texts and reads them in other groups or another order runs each pass inside `batch_rows(chat_model, rows, of)`: row i
of the pass is then text rows[i]. Without it row i of a pass is row i of the interventions, and a pass of another size is refused.
What reads a model and changes nothing learns in the same way which texts a pass is of (`RowFollower`).
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from emis_interp.errors import ModelError
from emis_interp.models.chat_model import ChatModel


@dataclass
class RowKeeper:
    """The rows of the interventions of one `apply`; a forward pre-hook of the model's body holds it as `keeper`.

    Attributes:
        tensors: everything that differs from row to row, rows first and equally many; empty when all rows are treated alike.
        by_pass: an intervention treats a prompt's pass otherwise than those that continue it.
        rows: which of these rows stand in the pass at hand; None: all of them, in their order.
    """

    tensors: tuple[Shaped[Tensor, "n_rows ..."], ...] = ()
    by_pass: bool = False
    rows: Int[Tensor, "batch"] | None = None

    @property
    def n_now(self) -> int | None:
        """Rows of the pass at hand; None when any number will do."""
        if not self.tensors:
            return None
        return len(self.tensors[0]) if self.rows is None else len(self.rows)

    def take(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """The rows of the pass at hand, of a tensor that has all of them."""
        return tensor if self.rows is None else tensor.index_select(dim, self.rows.to(tensor.device))

    def check(self, n: int, noun: str) -> None:
        """Refuse `n` rows where the interventions are for another number of them.

        Raises:
            ModelError: with both numbers.
        """
        if self.n_now is not None and self.n_now != n:
            raise ModelError(
                f"the interventions in force hold tensors for {self.n_now} rows, but there are {n} {noun}; give one row for each of them "
                "in their order (`expand` repeats and reorders rows), or one tensor for all"
            )

    def fingerprints(self) -> list[bytes]:
        """One value for each row of the pass at hand; rows with equal values are treated alike."""
        digests = [hashlib.blake2b(digest_size=16) for _ in range(self.n_now or 0)]
        for tensor in self.tensors:
            for digest, row in zip(digests, self.take(tensor).detach().cpu(), strict=True):
                digest.update(row.contiguous().view(torch.uint8).numpy().tobytes())
        return [digest.digest() for digest in digests]


@dataclass(frozen=True)
class PassRows:
    """Which texts a pass is of.

    Attributes:
        rows: the text of each row of the pass.
        of: how many texts the outermost caller was given.
        sharing: (texts, the row of the pass that each of them begins with), where rows of the pass serve several texts; None where
            every row is its own text.
    """

    rows: Int[Tensor, "batch"]
    of: int
    sharing: tuple[Int[Tensor, "n_texts"], Int[Tensor, "n_texts"]] | None = None

    @classmethod
    def within(
        cls, outer: "PassRows | None", rows: Sequence[int] | Int[Tensor, "batch"], of: int, *, sharing: Tensor | None
    ) -> "PassRows":
        """A scope inside another: `rows` and `sharing` count the rows of the outer one."""
        texts = torch.arange(of) if outer is None else outer.rows
        chosen = texts[torch.as_tensor(rows, dtype=torch.long).cpu()]
        return cls(chosen, of if outer is None else outer.of, None if sharing is None else (texts, sharing))


@dataclass
class RowFollower:
    """What reads a model, however many rows there are; a forward pre-hook of the model's body holds it as `follower`.

    `now`: the pass at hand; None outside of `batch_rows`, where row i of a pass is text i.
    """

    now: PassRows | None = None


@contextlib.contextmanager
def batch_rows(
    chat_model: ChatModel,
    rows: Sequence[int] | Int[Tensor, "batch"],
    of: int,
    *,
    noun: str = "rows",
    sharing: Int[Tensor, "n_texts"] | None = None,
) -> Iterator[None]:
    """Inside, row i of a pass is row rows[i] of the `of` that the caller was given; scopes within scopes compose.

    It concerns interventions and readers that are in force when it is entered, and costs nothing when there is no reader and no
    intervention differs from row to row.

    Args:
        sharing: for each of the `of` texts the row of this pass that it begins with, where several texts share one.

    Raises:
        ModelError: the interventions in force are for another number of rows than `of`, with both numbers (`noun` names the caller's).
    """
    keepers = [keeper for keeper in _keepers(chat_model) if keeper.tensors]
    for keeper in keepers:
        keeper.check(of, noun)
    outer = [keeper.rows for keeper in keepers]
    chosen = torch.as_tensor(rows, dtype=torch.long).cpu() if keepers else None
    followers = _followers(chat_model)
    earlier = [follower.now for follower in followers]
    try:
        for follower in followers:
            follower.now = PassRows.within(follower.now, rows, of, sharing=sharing)
        for keeper in keepers:
            keeper.rows = chosen if keeper.rows is None or chosen is None else keeper.rows[chosen]
        yield
    finally:
        for keeper, before in zip(keepers, outer, strict=True):
            keeper.rows = before
        for follower, was in zip(followers, earlier, strict=True):
            follower.now = was


def row_kinds(chat_model: ChatModel, of: int, noun: str = "rows") -> list[bytes]:
    """A label for each of `of` rows; rows with one label are under the same interventions, so equal prompts may share a pass.

    Raises:
        ModelError: as `batch_rows`.
    """
    kinds = [b""] * of
    for keeper in _keepers(chat_model):
        if keeper.tensors:
            keeper.check(of, noun)
            kinds = [a + b for a, b in zip(kinds, keeper.fingerprints(), strict=True)]
    return kinds


@contextlib.contextmanager
def one_probe_row(chat_model: ChatModel) -> Iterator[None]:
    """A pass of one row that is none of the caller's (a look at how the model is built) runs under the interventions of the first row."""
    with contextlib.ExitStack() as scopes:
        if counts := {keeper.n_now for keeper in _keepers(chat_model) if keeper.tensors}:
            scopes.enter_context(batch_rows(chat_model, [0], max(n or 0 for n in counts)))
        yield


def differs_by_row(chat_model: ChatModel) -> bool:
    """Whether an intervention in force treats the rows of a batch differently."""
    return any(keeper.tensors for keeper in _keepers(chat_model))


def differs_by_pass(chat_model: ChatModel) -> bool:
    """Whether an intervention in force treats a prompt's pass otherwise than those that continue it."""
    return any(keeper.by_pass for keeper in _keepers(chat_model))


def picked_rows(
    tensor: Shaped[Tensor, "..."], row_indices: Sequence[int] | Int[Tensor, "batch"], dim: int = 0
) -> Tensor:
    """The rows of a tensor by their indices, repeated and reordered as wanted.

    Raises:
        ModelError: a row that the tensor does not have, with the number of those that it has.
    """
    rows = torch.as_tensor(row_indices, dtype=torch.long, device=tensor.device)
    strange = rows[(rows < 0) | (rows >= tensor.shape[dim])]
    if len(strange):
        raise ModelError(
            f"row {int(strange[0])} asked for, the intervention holds {tensor.shape[dim]} rows, counted from 0"
        )
    return tensor.index_select(dim, rows)


def _keepers(chat_model: ChatModel) -> list[RowKeeper]:
    held = (getattr(hook, "keeper", None) for hook in chat_model.body._forward_pre_hooks.values())
    return [keeper for keeper in held if isinstance(keeper, RowKeeper)]


def _followers(chat_model: ChatModel) -> list[RowFollower]:
    held = (getattr(hook, "follower", None) for hook in chat_model.body._forward_pre_hooks.values())
    return [follower for follower in held if isinstance(follower, RowFollower)]
