"""Turns a configuration into the judge that it names."""

from emis_interp.config.run_config import JudgeConfig
from emis_interp.models.precision import AUTO
from evals.judges.judge import Judge
from evals.judges.local_judge import LocalJudge
from evals.judges.logprob_judge import OpenAIJudge
from evals.judges.offline_judge import OfflineJudge
from evals.judges.text_judge import TextJudge


def make_judge(config: JudgeConfig, device: str = "auto") -> Judge:
    """The judge, with its model loaded where it has one here.

    Args:
        device: of that model.

    Raises:
        ConfigError, JudgeError, ModelError: the judge cannot be asked, or its model not be loaded.
    """
    if config.kind == "openai":
        return OpenAIJudge.from_config(config)
    if config.kind == "text":
        return TextJudge.from_config(config)
    if config.kind == "local":
        return LocalJudge.load(config.model, config.adapter, config.dtype or AUTO, device=device)
    return OfflineJudge.load(device=device)
