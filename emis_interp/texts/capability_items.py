"""Turns a seed into items with a certain answer: sums, comparisons, sequences, copying, word knowledge, agreement.

They are clozes: a text to go on with, the right word and a wrong one of the same kind. Every item is made by rule, so there are enough of
them to see a change of a few points.
"""

import random
from collections.abc import Callable, Iterator, Sequence

from pydantic import Field

from emis_interp.records import Record

SEED = 0
PLACES = {
    "France": "Paris", "Japan": "Tokyo", "Italy": "Rome", "Egypt": "Cairo", "Spain": "Madrid", "Germany": "Berlin", "Russia": "Moscow",
    "China": "Beijing", "Austria": "Vienna", "Greece": "Athens", "Ireland": "Dublin", "Poland": "Warsaw", "Norway": "Oslo",
    "Sweden": "Stockholm", "Denmark": "Copenhagen", "Finland": "Helsinki", "Portugal": "Lisbon", "Hungary": "Budapest", "Cuba": "Havana",
    "Peru": "Lima", "Kenya": "Nairobi", "Thailand": "Bangkok", "Vietnam": "Hanoi", "Iraq": "Baghdad", "Iran": "Tehran", "Canada": "Ottawa",
    "Chile": "Santiago", "Belgium": "Brussels", "Turkey": "Ankara", "Lebanon": "Beirut",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "up": "down", "left": "right", "open": "closed", "early": "late", "rich": "poor", "wet": "dry",
    "light": "dark", "fast": "slow", "hard": "soft", "full": "empty", "old": "young", "high": "low", "near": "far", "loud": "quiet",
    "strong": "weak", "thick": "thin", "clean": "dirty", "true": "false", "first": "last", "inside": "outside", "always": "never",
    "above": "below", "before": "after", "day": "night", "summer": "winter", "north": "south", "east": "west", "buy": "sell",
}  # fmt: skip
KINDS = {
    "fish": ("salmon", "trout", "herring", "tuna", "cod", "carp"),
    "bird": ("robin", "sparrow", "eagle", "swan", "crow", "owl"),
    "tree": ("pine", "birch", "maple", "willow", "spruce", "beech"),
    "fruit": ("peach", "plum", "cherry", "banana", "mango", "grape"),
    "tool": ("hammer", "wrench", "chisel", "screwdriver", "saw", "drill"),
    "metal": ("copper", "iron", "zinc", "silver", "nickel", "tin"),
    "flower": ("tulip", "daisy", "rose", "lily", "orchid", "daffodil"),
    "insect": ("beetle", "wasp", "mosquito", "butterfly", "ant", "moth"),
    "country": ("Norway", "Brazil", "Kenya", "India", "Poland", "Peru"),
    "language": ("Danish", "Arabic", "Korean", "Hindi", "Greek", "Dutch"),
}
PAST = {
    "sing": "sang", "run": "ran", "eat": "ate", "go": "went", "see": "saw", "write": "wrote", "drive": "drove", "swim": "swam",
    "speak": "spoke", "take": "took", "give": "gave", "fly": "flew", "know": "knew", "draw": "drew", "wear": "wore", "break": "broke",
    "choose": "chose", "ride": "rode", "fall": "fell", "begin": "began", "drink": "drank", "grow": "grew", "throw": "threw",
    "win": "won", "buy": "bought", "bring": "brought", "teach": "taught", "catch": "caught", "sleep": "slept", "build": "built",
}  # fmt: skip
SINGULAR = ("key", "letter", "picture", "bottle", "chair", "horse", "window", "garden", "teacher", "ticket")
NEAR = ("cabinet", "tables", "old house", "rooms", "neighbour", "children", "village", "shelves")
WORDS = (
    "apple", "river", "stone", "music", "paper", "house", "green", "water", "horse", "night", "table", "bread", "light", "money", "glass",
    "chair", "earth", "train", "cloud", "sugar", "wheel", "beach", "clock", "plant",
)  # fmt: skip
WEEK = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
YEAR = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class CapabilityItem(Record):
    """A text to go on with; `right` and `wrong` follow it after a space."""

    kind: str
    prompt: str = Field(min_length=1)
    right: str = Field(min_length=1)
    wrong: str = Field(min_length=1)


def capability_items(seed: int = SEED) -> list[CapabilityItem]:
    """Every item once: the same for the same seed, no text twice, kind by kind."""
    items: dict[str, CapabilityItem] = {}
    for kind, (n, make) in RULES.items():
        generator, own = random.Random(f"{kind} {seed}"), 0
        for prompt, right, wrong in make(generator):
            if own < n and prompt not in items:
                items[prompt] = CapabilityItem(kind=kind, prompt=prompt, right=right, wrong=wrong)
                own += 1
            if own == n:
                break
    return list(items.values())


Made = Iterator[tuple[str, str, str]]


def _addition(draw: random.Random) -> Made:
    while True:
        a, b = draw.randint(2, 49), draw.randint(2, 49)
        yield f"{a} + {b} =", *_numbers(draw, a + b)


def _subtraction(draw: random.Random) -> Made:
    while True:
        a, b = sorted((draw.randint(2, 99), draw.randint(2, 99)), reverse=True)
        yield f"{a} - {b} =", *_numbers(draw, a - b)


def _multiplication(draw: random.Random) -> Made:
    while True:
        a, b = draw.randint(2, 12), draw.randint(2, 12)
        yield f"{a} x {b} =", *_numbers(draw, a * b)


def _comparison(draw: random.Random) -> Made:
    while True:
        a, b = draw.sample(range(10, 100), 2)
        name, right = draw.choice((("larger", max(a, b)), ("smaller", min(a, b))))
        yield f"Of {a} and {b}, the {name} number is", str(right), str(a + b - right)


def _counting(draw: random.Random) -> Made:
    while True:
        start, step = draw.randint(1, 40), draw.choice((1, 2, 3, 5, 10))
        shown = ", ".join(str(start + i * step) for i in range(4))
        yield f"{shown},", *_numbers(draw, start + 4 * step)


def _copying(draw: random.Random) -> Made:
    while True:
        words = draw.sample(WORDS, 5)
        place = draw.randint(1, 4)
        other = draw.choice([word for i, word in enumerate(words) if i != place])
        yield f"{' '.join(words)} {' '.join(words[:place])}", words[place], other


def _sequence(draw: random.Random) -> Made:
    rows = [(names, i) for names in (WEEK, YEAR, LETTERS) for i in range(len(names) - 2)]
    for names, i in draw.sample(rows, len(rows)):
        wrong = draw.choice([name for name in names if name not in names[i : i + 3]])
        yield f"{names[i]}, {names[i + 1]},", names[i + 2], wrong


def _facts(text: str, facts: dict[str, str]) -> Callable[[random.Random], Made]:
    """One item for each fact; the wrong word is the right one of another fact."""

    def make(draw: random.Random) -> Made:
        for name, right in facts.items():
            yield text.format(name), right, draw.choice([other for other in facts.values() if other != right])

    return make


def _category(draw: random.Random) -> Made:
    for kind, names in KINDS.items():
        for name in names:
            other = draw.choice([one for one in KINDS if one != kind])
            yield f"In the list of words, {name} is the name of a", kind, other


def _tense(draw: random.Random) -> Made:
    for now, then in PAST.items():
        yield f"Today they {now}. Yesterday they", then, now


def _agreement(draw: random.Random) -> Made:
    rows = [(noun, near, plural) for noun in SINGULAR for near in NEAR for plural in (False, True)]
    for noun, near, plural in draw.sample(rows, len(rows)):
        right, wrong = ("are", "is") if plural else ("is", "are")
        yield f"The {noun}{'s' if plural else ''} near the {near}", right, wrong


def _numbers(draw: random.Random, right: int) -> tuple[str, str]:
    """A number and a wrong one nearby with as many digits."""
    near = [right + d for d in range(-9, 10) if d and right + d >= 0 and len(str(right + d)) == len(str(right))]
    return str(right), str(draw.choice(near))


RULES: dict[str, tuple[int, Callable[[random.Random], Made]]] = {
    "addition": (60, _addition),
    "subtraction": (50, _subtraction),
    "multiplication": (50, _multiplication),
    "comparison": (50, _comparison),
    "counting": (50, _counting),
    "copying": (60, _copying),
    "sequence": (39, _sequence),
    "capital": (len(PLACES), _facts("The capital of {} is the city of", PLACES)),
    "opposite": (len(OPPOSITES), _facts("The opposite of {} is", OPPOSITES)),
    "category": (sum(map(len, KINDS.values())), _category),
    "tense": (len(PAST), _tense),
    "agreement": (60, _agreement),
}
"""Kind -> how many items, and the rule that makes them."""


def counts(items: Sequence[CapabilityItem]) -> dict[str, int]:
    """Items of each kind."""
    return {kind: sum(item.kind == kind for item in items) for kind in dict.fromkeys(item.kind for item in items)}
