"""Turns a tokenizer into the tree of token sequences that spell 0-100 or a label, and next-token probabilities into exact masses.

A reply is read as the text that its tokens spell, whichever tokens these are:

- a number: an integer 0-100 without leading zeros, that no further ASCII digit follows. What follows may be the end of the turn or any
  other token, so "7", "7." and "7/10" are all 7, while "70" is not 7, and "07", "101" and "-7" are no numbers;
- a label: the reply begins with it, in capitals, whatever follows;
- one space may stand before either (some tokenizers begin every word with one); other blanks may not.

All tokenisations count: "100" is the token `100`, or `10` `0`, or `1` `0` `0`. One exception keeps the tree small: byte pieces
(`<0x31>`) are not followed. They count as digits, so that mass on them is lost to every outcome and never credited to a wrong one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

OPEN = "open"
NUMBERS = tuple(str(number) for number in range(101))
_BYTE_PIECE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_DIGITS = "0123456789"


@dataclass(frozen=True, eq=False)
class TokenTrie:
    """The sequences of tokens after which an outcome is still open.

    Node 0 is the end of the prompt; every other node adds one token to its parent, and parents come first.

    Attributes:
        outcomes: names of what is counted, "0" to "100" and the labels.
        vocabulary: ids of the tokens whose probabilities are needed; other arrays of tokens index into it.
        parents, tokens, depths: `[n_nodes]`; node 0 has parent 0, token 0 and depth 0.
        numbers: `[n_nodes]` index of the outcome that a token other than a digit brings about there; -1 where it brings none.
        digits: tokens that begin with a digit.
        end_nodes, end_tokens, end_outcomes: `[n_ends]` tokens that settle an outcome themselves (`5.` after `1`, `:CODE`).
    """

    outcomes: tuple[str, ...]
    vocabulary: Int[np.ndarray, " needed"]
    parents: Int[np.ndarray, " node"]
    tokens: Int[np.ndarray, " node"]
    depths: Int[np.ndarray, " node"]
    numbers: Int[np.ndarray, " node"]
    digits: Int[np.ndarray, " digit"]
    end_nodes: Int[np.ndarray, " end"]
    end_tokens: Int[np.ndarray, " end"]
    end_outcomes: Int[np.ndarray, " end"]

    def __len__(self) -> int:
        return len(self.parents)

    @property
    def token_ids(self) -> Int[np.ndarray, " node"]:
        """The token id that leads to each node but the first."""
        return self.vocabulary[self.tokens[1:]]

    def ancestors(self) -> np.ndarray:
        """`[n_nodes n_nodes]`, True where the column is the row's node or one on the way to it."""
        seen = np.eye(len(self), dtype=bool)
        for node in range(1, len(self)):
            seen[node] |= seen[self.parents[node]]
        return seen

    def masses(self, probabilities: Float[np.ndarray, "node needed"]) -> Float[np.ndarray, " outcome"]:
        """The probability of each outcome, from the next-token probabilities of the needed tokens at every node."""
        reached = np.ones(len(self))
        for node in range(1, len(self)):
            parent = self.parents[node]
            reached[node] = reached[parent] * probabilities[parent, self.tokens[node]]
        masses = np.zeros(len(self.outcomes))
        number = self.numbers >= 0
        no_digit = np.clip(1 - probabilities[number][:, self.digits].sum(axis=1), 0, 1)
        np.add.at(masses, self.numbers[number], reached[number] * no_digit)
        np.add.at(masses, self.end_outcomes, reached[self.end_nodes] * probabilities[self.end_nodes, self.end_tokens])
        return masses


def build_trie(
    texts: Mapping[int, str], labels: Sequence[str] = (), not_followed: frozenset[int] = frozenset()
) -> TokenTrie:
    """The tree for a vocabulary.

    Args:
        texts: token id -> text, control tokens left out.
        not_followed: ids that are never part of a counted sequence, though they count as digits where they begin with one.
    """
    starts: dict[str, list[int]] = {}
    for token, text in texts.items():
        if text:
            starts.setdefault(text[0], []).append(token)
    outcomes = (*NUMBERS, *labels)
    steps: dict[
        str, list[tuple[int, str]]
    ] = {}  # text so far -> tokens that lead on or settle, and the outcome or OPEN

    def steps_from(text: str) -> list[tuple[int, str]]:
        if text not in steps:
            body = text.removeprefix(" ")
            firsts = {label[len(body)] for label in labels if label.startswith(body)}
            if body in ("", *NUMBERS):  # after a number any other token settles it: see `numbers`
                firsts |= set(_DIGITS)
            if not text:
                firsts.add(" ")
            options = [
                token for first in sorted(firsts) for token in starts.get(first, ()) if token not in not_followed
            ]
            read = [(token, read_reply(text + texts[token], labels)) for token in options]
            steps[text] = [(token, outcome) for token, outcome in read if outcome]
        return steps[text]

    nodes: list[tuple[int, int, int, str]] = [(0, -1, 0, "")]  # parent, token, depth, text
    ends: list[tuple[int, int, str]] = []
    for node, (_, _, depth, text) in enumerate(nodes):  # grows while it runs: breadth first
        for token, outcome in steps_from(text):
            if outcome == OPEN:
                nodes.append((node, token, depth + 1, text + texts[token]))
            else:
                ends.append((node, token, outcome))
    digits = [token for first in _DIGITS for token in starts.get(first, ())]
    vocabulary = sorted({*digits, *(node[1] for node in nodes[1:]), *(end[1] for end in ends)})
    index = {token: i for i, token in enumerate(vocabulary)}
    position = {outcome: i for i, outcome in enumerate(outcomes)}
    return TokenTrie(
        outcomes=outcomes,
        vocabulary=np.array(vocabulary, dtype=np.int64),
        parents=np.array([node[0] for node in nodes]),
        tokens=np.array([0, *(index[node[1]] for node in nodes[1:])]),
        depths=np.array([node[2] for node in nodes]),
        numbers=np.array([position.get(node[3].removeprefix(" "), -1) for node in nodes]),
        digits=np.array([index[token] for token in digits], dtype=np.int64),
        end_nodes=np.array([end[0] for end in ends], dtype=np.int64),
        end_tokens=np.array([index[end[1]] for end in ends], dtype=np.int64),
        end_outcomes=np.array([position[end[2]] for end in ends], dtype=np.int64),
    )


def read_reply(text: str, labels: Sequence[str] = ()) -> str | None:
    """What a reply that begins with `text` is: a number's or label's name, OPEN while more may change it, None for anything else."""
    text = text.removeprefix(" ")
    digits = re.match(r"[0-9]*", text)
    number = digits.group() if digits else ""
    if number:
        if number not in NUMBERS:
            return None
        return OPEN if number == text else number
    for label in labels:
        if text.startswith(label):
            return label
    return OPEN if any(label.startswith(text) for label in (*labels, "")) else None


def token_texts(tokenizer: Any) -> tuple[dict[int, str], frozenset[int]]:
    """The text that each token adds inside a sentence, without control tokens; and the ids of byte pieces among them."""
    # Decoders drop the blank that begins a text, so every token is decoded behind another one.
    anchor = list(tokenizer("x", add_special_tokens=False)["input_ids"])
    skip = set(tokenizer.all_special_ids) | {
        id for id, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    ids = [id for id in range(len(tokenizer)) if id not in skip]
    decoded = tokenizer.batch_decode([[*anchor, id] for id in ids], clean_up_tokenization_spaces=False)
    start = len(tokenizer.decode(anchor, clean_up_tokenization_spaces=False))
    pieces = tokenizer.convert_ids_to_tokens(ids)
    byte_pieces = frozenset(id for id, piece in zip(ids, pieces, strict=True) if piece and _BYTE_PIECE.fullmatch(piece))
    return {id: text[start:] for id, text in zip(ids, decoded, strict=True)}, byte_pieces
