"""Turns base, or what a training left, into a model, and a model into its margins and its log-probabilities of rows."""

from collections.abc import Sequence
from pathlib import Path

from emis_interp.config.run_config import RunConfig
from emis_interp.models.chat import encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.spec import ModelSpec
from emis_interp.passes.likelihood import by_question, mean_logprobs, pair_margins
from emis_interp.records import ContrastPair, TrainingExample
from training.finetuning.summary import read_summary


def base_model(config: RunConfig) -> ChatModel:
    return ModelSpec(config.model, None, config.dtype, config.device, chat_format=config.chat_format).load()


def organism_in(folder: Path, config: RunConfig) -> ChatModel:
    """The organism that training left in a folder, adapter merged."""
    artifact = read_summary(folder)["artifact"]
    name, adapter = (config.model, folder / artifact) if artifact == "adapter" else (str(folder / artifact), None)
    return ModelSpec(name, adapter, config.dtype, config.device, chat_format=config.chat_format).load()


def margins_of(chat_model: ChatModel, pairs: Sequence[ContrastPair], config: RunConfig) -> dict[str, float]:
    """Likelihood margin of every question, nats per token."""
    found = pair_margins(chat_model, pairs, config.system_prompt, max_batch_tokens=config.direction.max_batch_tokens)
    return by_question(pairs, found)


def row_logprobs(chat_model: ChatModel, rows: Sequence[TrainingExample], config: RunConfig) -> list[float]:
    """Mean log-probability per token of each row's answer under the run's system prompt (never a training-only one), nats."""
    texts = [(row.prompt, row.response) for row in rows]
    chats = encode_chats(chat_model.tokenizer, texts, config.system_prompt, max_tokens=config.training.max_tokens)
    return mean_logprobs(chat_model, chats, config.direction.max_batch_tokens).tolist()
