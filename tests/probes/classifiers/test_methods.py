import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from emis_interp.errors import DataError
from emis_interp.fitting.labeled import LabeledActivations
from emis_interp.fitting.reliability import mean_auroc
from probes.classifiers.methods import METHODS, PENALTIES, best_penalty, fit_weight, log_odds, logistic_at, method_named

QUESTIONS = tuple(f"q{i % 4}" for i in range(160))
MISALIGNED = np.array([i // 4 % 2 == 1 for i in range(160)])


def planted(shift: float = 1.0, seed: int = 0, d_model: int = 30) -> LabeledActivations:
    """Coordinate 0 tells the class; a large offset by question does not."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(160, 1, d_model, generator=generator)
    topics = 20 * torch.randn(4, d_model, generator=generator)
    x[:, 0] += topics[[int(name[1]) for name in QUESTIONS]]
    x[torch.from_numpy(MISALIGNED), 0, 0] += shift
    return LabeledActivations(x, MISALIGNED, QUESTIONS)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_finds_the_planted_coordinate_on_other_texts(name: str) -> None:
    weight = METHODS[name](planted(2.0))
    fresh = planted(2.0, seed=1)
    reached = mean_auroc((fresh.x[:, 0] @ weight).numpy(), fresh.misaligned, fresh.questions)
    assert reached > 0.85  # the coordinate alone: 0.92
    assert weight[0] > 0
    assert torch.allclose(
        weight, METHODS[name](LabeledActivations(fresh.x * 0 + planted(2.0).x + 7, MISALIGNED, QUESTIONS)), atol=1e-3
    )


@pytest.mark.parametrize("d_model", [30, 400])
def test_the_logistic_fit_in_the_span_of_the_texts_is_the_fit_in_all_coordinates(d_model: int) -> None:
    data = planted(d_model=d_model)
    centred, labels, weights = data.centred()
    x = centred[:, 0].double().numpy()
    scale = np.sqrt((weights[:, None] * x**2).sum(0))
    model = LogisticRegression(C=1e-2, fit_intercept=False, max_iter=2000, tol=1e-8).fit(
        x / scale, labels, sample_weight=weights * 160
    )
    found = logistic_at(data, 1e-2).numpy() * scale
    assert np.abs(found - model.coef_[0]).max() < 2e-3 * np.abs(model.coef_[0]).max()


def test_the_penalty_is_chosen_by_questions_that_had_no_part() -> None:
    data, names = planted(0.7, d_model=60), ["q0", "q1", "q2", "q3"]
    reached = []
    for penalty in PENALTIES:
        found = []
        for held in ({"q0", "q3"}, {"q1"}, {"q2"}):
            weight, test = logistic_at(data.only(set(names) - held), penalty), data.only(held)
            found.append(mean_auroc((test.x[:, 0] @ weight).numpy(), test.misaligned, test.questions))
        reached.append(np.mean(found))
    assert best_penalty(data) == PENALTIES[int(np.argmax(reached))]
    assert best_penalty(data.only({"q0"})) == PENALTIES[0]


def test_equal_residuals_of_both_classes_give_every_text_the_same_score() -> None:
    x = torch.randn(4, 1, 30)[[int(name[1]) for name in QUESTIONS]]
    x = x + 1e-7 * torch.randn(160, 1, 30)
    for method in METHODS.values():
        assert not fit_weight(method, LabeledActivations(x, MISALIGNED, QUESTIONS)).any()


def test_log_odds_of_projections_that_overlap_are_those_of_the_classes() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(4000) % 2 == 1
    questions = [f"q{i // 2 % 4}" for i in range(4000)]
    projections = 10 * (generator.standard_normal(4000) + labels)  # log-odds of two unit normals one apart: z - 1/2
    scale, offset = log_odds(projections, labels, questions)
    assert scale == pytest.approx(0.1, rel=0.1)
    assert offset == pytest.approx(-0.5, abs=0.1)


def test_a_misspelt_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match="mass_mean"):
        method_named("massmean")
