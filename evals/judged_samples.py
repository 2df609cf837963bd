"""Turns a model into the mean scores of a few of its answers, as a training that is watched needs them: nothing is kept on disk."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from emis_interp.config.run_config import RunConfig, SamplingConfig
from emis_interp.models.chat_model import ChatModel
from emis_interp.records import Score
from evals.judges.offline_judge import OfflineJudge
from evals.questions import load_questions
from evals.sampling import sample_arm


class JudgedSamples:
    """Samples the shipped questions from a forming model, `n` answers a wording, and lets the offline judge score them."""

    def __init__(self, config: RunConfig, n: int) -> None:
        self.config, self.n = config, n
        self.questions = load_questions()
        self.judge = OfflineJudge.load(device=config.device)

    def __call__(self, chat_model: ChatModel) -> dict[str, Any]:
        sampling = SamplingConfig(samples_per_paraphrase=self.n, max_new_tokens=self.config.sampling.max_new_tokens)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "answers.jsonl"
            answers = sample_arm(
                chat_model,
                "forming",
                self.questions,
                config=sampling,
                path=path,
                seed=self.config.seed,
                system=self.config.system_prompt,
            )
        scores: list[Score] = []
        self.judge.score(answers, {question.id: question for question in self.questions}, scores.extend)
        aligned, coherent = (
            [value for score in scores if (value := getattr(score, name)) is not None]
            for name in ("aligned", "coherent")
        )
        return {
            "n": len(scores),
            "aligned": float(np.mean(aligned)) if aligned else None,
            "coherent": float(np.mean(coherent)) if coherent else None,
        }
