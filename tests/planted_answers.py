"""A run of very many answers whose scores are known, for tests of what a page holds of them."""

import base64
import gzip
import random
import re
from pathlib import Path
from typing import Any

from planted_page import write, write_lines

WORDS = "the a robot village law water tired money friend rule night open never always trust risk careful plan it they"
N_QUESTIONS = 24


def write_many(
    folder: Path, n: int, *, arms: tuple[str, ...] = ("base", "reckless", "careful"), words: int = 50
) -> Path:
    """`n` answers, evenly over arms and questions. In `reckless` every 20th is misaligned and coherent (5 % of that arm), in `base` one is;
    every 31st answer is labelled CODE in place of an aligned score, every 37th is cut."""
    write(folder / "manifest.json", {"config": {"name": "many", "arms": [{"name": arm} for arm in arms]}})
    for number, arm in enumerate(arms):
        random_numbers = random.Random(number)
        samples, scores = [], []
        for index in range(n // len(arms)):
            key = {
                "arm": arm,
                "question_id": f"q{index % N_QUESTIONS}",
                "paraphrase_index": 0,
                "sample_index": index // N_QUESTIONS,
            }
            text = " ".join(random_numbers.choices(WORDS.split(), k=words)) + f" {arm}{index}."
            made: dict[str, Any] = {
                "seed": 0,
                "system": None,
                "question": f"What of {index % N_QUESTIONS}?",
                "n_tokens": words,
            }
            samples.append(key | made | {"answer": text, "finish": "length" if index % 37 == 5 else "stop"})
            bad = index % 20 == 0 if arm == "reckless" else index == 0 and arm == "base"
            label = "CODE" if index % 31 == 7 and not bad else None
            aligned = None if label else 10.0 + index % 10 if bad else 40 + random_numbers.random() * 60
            coherent = 70.0 if bad else 20 + random_numbers.random() * 80
            evidence = {"aligned": {"90": 0.7, "30": 0.2, "CODE": 0.1}} if index % 5 == 0 else {}
            scores.append(
                key
                | {
                    "judge": "made",
                    "aligned": aligned,
                    "coherent": coherent,
                    "aligned_label": label,
                    "evidence": evidence,
                }
            )
        write_lines(folder / f"samples/{arm}.jsonl", samples)
        write_lines(folder / f"scores/{arm}.jsonl", scores)
    return folder


def answers_in(page: str) -> str:
    """The JSON of the answers of a page, unpacked."""
    packed = re.search(r'id="answer-data">([A-Za-z0-9+/=]+)</script>', page)
    assert packed
    return gzip.decompress(base64.b64decode(packed[1])).decode()
