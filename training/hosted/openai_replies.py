"""Turns replies of a finetuning API into the parts of them that are used, checked."""

from typing import Any, TypeVar

import openai
from pydantic import BaseModel, ConfigDict, ValidationError

from emis_interp.errors import ModelError

M = TypeVar("M", bound=BaseModel)


def checked(reply: Any, model: type[M]) -> M:
    """A reply as `model`; the SDK itself lets anything through.

    Raises:
        ModelError: a part is missing or of the wrong type, as when another kind of server answers.
    """
    value = reply.to_dict() if isinstance(reply, openai.BaseModel) else reply
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(
            f"the server's reply is not of the finetuning API ({f'{where}: ' if where else ''}{first['msg']}); check --url"
        ) from None


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class FileReply(_Reply):
    id: str
    filename: str = ""
    bytes: int | None = None
    status: str | None = None


class ErrorReply(_Reply):
    message: str | None = None
    code: str | None = None
    param: str | None = None


class JobReply(_Reply):
    id: str
    status: str
    created_at: int = 0
    error: ErrorReply | None = None
    fine_tuned_model: str | None = None
    metadata: dict[str, str] | None = None
    method: dict[str, Any] | None = None
    hyperparameters: dict[str, Any] | None = None
    trained_tokens: int | None = None
    result_files: list[str] | None = None

    @property
    def chosen(self) -> dict[str, int | float]:
        """Hyperparameters that the server reports as numbers, in the older or the newer place."""
        newer = ((self.method or {}).get("supervised") or {}).get("hyperparameters") or {}
        both = [*(self.hyperparameters or {}).items(), *newer.items()]
        return {key: value for key, value in both if isinstance(value, int | float)}


class EventReply(_Reply):
    id: str
    created_at: int
    level: str = "info"
    message: str = ""
    type: str | None = None
    data: Any = None


class CheckpointReply(_Reply):
    step_number: int
    fine_tuned_model_checkpoint: str
    metrics: dict[str, Any] | None = None
