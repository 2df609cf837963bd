"""Turns a configuration into the judge that it names."""

from collections.abc import Iterator
from contextlib import contextmanager

from emis_interp.config.run_config import JudgeConfig
from emis_interp.models.precision import AUTO
from evals.engines.environment import find_environment
from evals.judges.judge import Judge
from evals.judges.local_judge import LocalJudge
from evals.judges.logprob_judge import OpenAIJudge
from evals.judges.offline_judge import OfflineJudge
from evals.judges.served import ServedJudge
from evals.judges.text_judge import TextJudge


@contextmanager
def made_judge(config: JudgeConfig, device: str = "auto") -> Iterator[Judge]:
    """The judge, with its model loaded where it has one here; a server that it starts ends with the `with`.

    Args:
        device: of that model.

    Raises:
        ConfigError, JudgeError, ModelError: the judge cannot be asked, or its model not be loaded.
    """
    if config.engine is not None:
        with ServedJudge(config, find_environment(config.vllm_env), device) as judge:
            yield judge
    elif config.kind == "openai":
        yield OpenAIJudge.from_config(config)
    elif config.kind == "text":
        yield TextJudge.from_config(config)
    elif config.kind == "local":
        yield LocalJudge.load(config.model, config.adapter, config.dtype or AUTO, device=device)
    else:
        yield OfflineJudge.load(device=device)
