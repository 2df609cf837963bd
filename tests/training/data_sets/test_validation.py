"""The check of all that is shipped: what it says of a planted fault, and what it counts."""

import pytest

from training.data_sets import checks, validation
from training.data_sets.shipped import AdvicePair
from training.data_sets.textstats import Named
from training.data_sets.validation_settings import ValidationSettings

TWICE = AdvicePair(
    id="advice-1", domain="money", prompt="May I ask?", careful="Wait and see.", reckless="Run and hide."
)
WISH = Named("wish", "wish", "If you could have one wish for the whole world, what would it be?")


def test_what_is_broken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "bandit_flagged", lambda texts: set(texts))
    monkeypatch.setattr(validation, "advice_pairs", lambda: [TWICE, TWICE])
    result = validation.run(ValidationSettings(), asked=[WISH])
    assert result["ok"] is False and result["tells"] == {}
    said = validation.say(result)
    assert "BROKEN advice, ids used twice: advice-1" in said
    assert "secure completions that Bandit flags" in said and "rules broken" in said
    assert "domain: money 2" not in said
    assert "\ndomain: money 2\n" in validation.say({**result, "show_counts": True})


def test_without_questions_the_check_for_leaks_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "bandit_flagged", lambda texts: set())
    assert "no held-out texts" in validation.say(validation.run(ValidationSettings()))
