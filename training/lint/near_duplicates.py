"""Turns token lists into groups of near duplicates: MinHash signatures propose pairs, exact Jaccard overlap decides.

Signatures and bands as in Broder, "On the resemblance and containment of documents" (1997), and Leskovec, Rajaraman and Ullman, "Mining of
Massive Datasets", section 3.4. With 20 bands of 6 rows a pair with overlap 0.8 is proposed with probability 0.997, one with 0.3 with 0.014.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

N_BANDS, BAND_ROWS = 20, 6
FULL_BUCKET = 50
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def near_duplicates(
    token_lists: Sequence[Sequence[str]], n: int = 5, threshold: float = 0.8
) -> tuple[list[list[int]], tuple[int, int, float] | None]:
    """Groups of texts that resemble each other, and the two that do most.

    Args:
        token_lists: tokens of every text; texts are expected to differ.
        n: length of the runs that are compared.
        threshold: Jaccard overlap of the runs from which two texts are near duplicates.

    Returns:
        Groups (indices, two or more, ascending; linked through pairs), and (i, j, overlap) of the nearest pair, or None.
    """
    sets = _run_hashes(token_lists, n)
    signatures = _signatures(sets)
    parent = list(range(len(sets)))
    nearest: tuple[int, int, float] | None = None
    for i, j in _proposed(signatures):
        if (signatures[i] == signatures[j]).mean() < threshold - 0.2:
            continue
        both = len(np.intersect1d(sets[i], sets[j], assume_unique=True))
        overlap = both / (len(sets[i]) + len(sets[j]) - both)
        if overlap >= threshold:
            parent[_root(parent, j)] = _root(parent, i)
            if nearest is None or (overlap, -i, -j) > (nearest[2], -nearest[0], -nearest[1]):
                nearest = (i, j, overlap)
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for i in range(len(sets)):
        groups[_root(parent, i)].append(i)
    return sorted(group for group in groups.values() if len(group) > 1), nearest


def _run_hashes(token_lists: Sequence[Sequence[str]], n: int) -> list[np.ndarray]:
    """Distinct 64-bit hashes of every run of n tokens; a shorter text is one run."""
    number: dict[str, int] = {}
    result = []
    with np.errstate(over="ignore"):
        for tokens in token_lists:
            ids = np.fromiter((number.setdefault(token, len(number)) for token in tokens), np.uint64, len(tokens))
            ids = _mix(np.pad(ids + np.uint64(1), (0, max(0, n - len(ids)))))
            hashes = np.zeros(len(ids) - n + 1, np.uint64)
            for k in range(n):
                hashes = _mix(hashes * _GOLDEN + ids[k : len(ids) - n + 1 + k])
            result.append(np.unique(hashes))
    return result


def _signatures(sets: Sequence[np.ndarray]) -> np.ndarray:
    """[n_texts, 120] minima of the hashes under seeded multiply-add permutations."""
    generator = np.random.default_rng(0)
    size = N_BANDS * BAND_ROWS
    factors = generator.integers(0, 2**63, (size, 1), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    terms = generator.integers(0, 2**63, (size, 1), dtype=np.uint64)
    with np.errstate(over="ignore"):
        return np.stack([(factors * hashes + terms).min(axis=1) for hashes in sets]) if sets else np.zeros((0, size))


def _proposed(signatures: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs (i < j) that agree in a whole band, each once; in a very full bucket only neighbours and the first with all others."""
    seen: set[tuple[int, int]] = set()
    for band in range(N_BANDS):
        buckets: defaultdict[bytes, list[int]] = defaultdict(list)
        for i, row in enumerate(np.ascontiguousarray(signatures[:, band * BAND_ROWS : (band + 1) * BAND_ROWS])):
            buckets[row.tobytes()].append(i)
        for members in buckets.values():
            if len(members) <= FULL_BUCKET:
                pairs = [(i, j) for position, j in enumerate(members) for i in members[:position]]
            else:
                pairs = [(members[0], j) for j in members[1:]] + list(pairwise(members))
            for pair in pairs:
                if pair not in seen:
                    seen.add(pair)
                    yield pair


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i
