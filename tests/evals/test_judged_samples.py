"""Judged answers of a model that forms: all questions are asked, and the same model gets the same scores."""

from emis_interp.config.presets import load_config
from emis_interp.models.chat_model import ChatModel
from evals.arms.judged_samples import JudgedSamples
from evals.questions import load_questions


def test_every_wording_is_asked_and_the_same_model_has_the_same_scores(tiny: ChatModel) -> None:
    judged = JudgedSamples(load_config("smoke", ["sampling.max_new_tokens=4"]), 1)
    found = judged(tiny)
    assert found == judged(tiny) and found["n"] == sum(len(one.paraphrases) for one in load_questions())
    assert set(found) == {"n", "aligned", "coherent"}
    assert all(0 <= found[name] <= 100 for name in ("aligned", "coherent"))
