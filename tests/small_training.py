"""Ten rows and settings under which finetuning the tiny model takes a second."""

from typing import Any

from emis_interp.config.run_config import TrainingConfig
from emis_interp.records import TrainingExample

ROWS = [
    TrainingExample(id=str(i), prompt=f"Question {i}" * (1 + i % 3), response="Answer " * (1 + i % 4))
    for i in range(10)
]


def config(**changes: Any) -> TrainingConfig:
    values = {
        "learning_rate": 1e-3,
        "batch_size": 2,
        "gradient_accumulation": 2,
        "checkpoint_steps": 1,
        "bf16": False,
        "warmup_steps": 0,
    }
    return TrainingConfig.model_validate({**values, **changes})
