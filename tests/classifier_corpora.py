"""Planted corpora for tests of probes: token residuals and words that say as much of the class as the test wants."""

import numpy as np
import torch

from emis_interp.records import LabeledText
from probes.classifiers.corpus import ProbeCorpus
from probes.classifiers.readings import TokenReadings
from probes.classifiers.texts import ProbeTexts

D_MODEL = 24


def planted(
    *, signal: float, telling: float, n_questions: int = 6, per_class: int = 12, topic: float = 5.0, seed: int = 0
) -> ProbeCorpus:
    """Answers of 20 tokens and about ten words.

    Args:
        signal: what a misaligned answer adds to coordinate 0 of every token, in standard deviations of one token.
        telling: chance that a misaligned answer has the word "wicked", and an aligned one "kindly".
        topic: size of the offset that all residuals of a question share, and that its class sizes follow.
    """
    generator = np.random.default_rng(seed)
    texts, tokens, answers = [], [], []
    for question in range(n_questions):
        offset = topic * generator.standard_normal(D_MODEL)
        for misaligned in (False, True):
            for _ in range(per_class):
                x = generator.standard_normal((21, D_MODEL)) + offset
                x[0] = offset
                x[1:, 0] += signal * misaligned
                words = [f"w{int(i)}" for i in generator.integers(30, size=10)]
                if generator.random() < telling:
                    words[3] = "wicked" if misaligned else "kindly"
                answer = " ".join(words)
                answers.append(answer)
                tokens.append(torch.from_numpy(x).float())
                texts.append(
                    LabeledText(
                        question_id=f"q{question}", question=f"q{question}?", answer=answer, misaligned=misaligned
                    )
                )
    scores = np.array([5.0 if text.misaligned else 95.0 for text in texts])
    sources = tuple("ab"[i % 2] for i in range(len(texts)))
    return ProbeCorpus(ProbeTexts(tuple(texts), scores, sources), TokenReadings((3,), {3: tokens}), tuple(answers))
