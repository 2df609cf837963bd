import numpy as np
import torch

from emis_interp.fitting.reliability import mean_auroc
from probes.classifiers.attention import fit_attention

QUESTIONS = tuple(f"q{i % 4}" for i in range(120))
MISALIGNED = np.array([i // 4 % 2 == 1 for i in range(120)])


def one_telling_token(seed: int) -> list[torch.Tensor]:
    """Of 60 tokens one, marked by coordinate 1, has the class in coordinate 0; in the others coordinate 0 is noise."""
    generator = torch.Generator().manual_seed(seed)
    texts = []
    for misaligned in MISALIGNED:
        x = torch.randn(int(torch.randint(40, 80, (1,), generator=generator)), 16, generator=generator)
        place = int(torch.randint(len(x), (1,), generator=generator))
        x[place, 1] = 8.0
        x[place, 0] = 3.0 if misaligned else -3.0
        texts.append(x)
    return texts


def test_attention_finds_the_telling_token_that_a_mean_drowns() -> None:
    probe = fit_attention(one_telling_token(0), MISALIGNED, QUESTIONS, layer=2)
    fresh = one_telling_token(1)
    reached = mean_auroc(np.array([float(probe.score(x)) for x in fresh]), MISALIGNED, QUESTIONS)
    averaged = mean_auroc(np.array([float(x[:, 0].mean()) for x in fresh]), MISALIGNED, QUESTIONS)
    assert averaged < 0.8
    assert reached > 0.95
    assert probe.layer == 2


def test_the_folded_scale_and_offset_change_no_score() -> None:
    """Residuals far from the origin and on another scale train the same head."""
    texts = one_telling_token(0)
    plain = fit_attention(texts, MISALIGNED, QUESTIONS, layer=0)
    moved = fit_attention([50 * x + 30 for x in texts], MISALIGNED, QUESTIONS, layer=0)
    for x in texts[:5]:
        assert abs(float(plain.score(x)) - float(moved.score(50 * x + 30))) < 0.05
