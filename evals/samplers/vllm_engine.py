"""Turns planned prompts into answers of a vLLM server that this project started: prompts go as the tokens that the HF sampler reads, and
the tokens of an answer come back, so that templates, stop rules and texts are those of the HF sampler."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from emis_interp.config.run_config import SamplingConfig
from emis_interp.errors import DataError, ModelError
from emis_interp.files.strict_json import parse_json_line
from emis_interp.http.chat_api import ChatApi
from emis_interp.http.request_fields import with_request
from emis_interp.models.chat import encode_prompt, read_answer
from emis_interp.models.chat_formats import format_of
from emis_interp.models.chat_template import template_of
from emis_interp.models.context import check_fits, room
from emis_interp.records import Completion
from evals.samplers import Key, OnBatch
from evals.samplers.openai_compatible import SEEDS, BadAnswer, OpenAISampler

OURS = ("prompt", "stop_token_ids", "return_token_ids")
"""Fields of a request that make the answers those of the HF sampler."""


class VLLMSampler(OpenAISampler):
    """Samples from one model of a vLLM server by its text completions.

    Args:
        api: names the model on the server.
        tokenizer: renders and encodes the prompts, and decodes the answers.
        stops: ids of the tokens that end an answer.
        card: what is served (model, adapter, number format, version), for the record.
        max_tokens: that the server has room for, a prompt and its answer together.
        request: changes of every request, as for `OpenAISampler`; `seed: null` leaves the seed out.

    Raises:
        ModelError: `request` sets what makes the answers those of the HF sampler, or what has a flag of its own.
    """

    def __init__(
        self,
        api: ChatApi,
        tokenizer: Any,
        stops: Collection[int],
        *,
        card: Mapping[str, Any],
        max_tokens: int | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(api, plain_sampling=True, request=request)
        if mine := [name for name in OURS if name in (request or {})]:
            raise ModelError(f"the request sets `{mine[0]}`, which the vLLM sampler sets itself; leave it out")
        if "chat_template_kwargs" in (request or {}):
            raise ModelError(
                "the request sets `chat_template_kwargs`: the vLLM sampler renders prompts here, as finished turns, in which a thought "
                "is left empty; leave it out, or serve the model and use the openai sampler"
            )
        self._tokenizer, self._stops, self._max_tokens = tokenizer, sorted(stops), max_tokens
        self._served = dict(card)
        self._prompts: dict[tuple[str, str | None], tuple[int, ...]] = {}

    @property
    def card(self) -> dict[str, Any]:
        own = {
            "kind": "vllm",
            **self._served,
            "chat_format": format_of(self._tokenizer),
            "rendering": template_of(self._tokenizer).card,
            "seeds": "none" if self._request.get("seed", 0) is None else f"answer seed modulo {SEEDS}",
            "stop_tokens": self._tokenizer.convert_ids_to_tokens(self._stops),
        }
        return {**own, "fields": super().card["fields"]}

    async def sample_async(
        self, plan: Sequence[Completion], done: Collection[Key], config: SamplingConfig, *, on_batch: OnBatch
    ) -> dict[Key, str]:
        """As `OpenAISampler`.

        Raises:
            DataError: before the first request, for a prompt that leaves no room for its answer.
        """
        limits = [limit for limit in (room(self._tokenizer), self._max_tokens) if limit is not None]
        for item in plan:
            what = f"prompt of {item.question[:60]!r}"
            check_fits(len(self._encoded(item)), min(limits, default=None), what, n_new=config.max_new_tokens)
        return await super().sample_async(plan, done, config, on_batch=on_batch)

    def _body(self, item: Completion, config: SamplingConfig) -> dict[str, Any]:
        plain = {
            "max_tokens": config.max_new_tokens,
            "temperature": config.temperature,
            "seed": item.seed % SEEDS,
            **self._whole,
            "stop_token_ids": self._stops,
            "return_token_ids": True,
        }
        return {"prompt": list(self._encoded(item)), **with_request(plain, self._request)}

    def _read(self, content: bytes, item: Completion, body: Mapping[str, Any]) -> Completion:
        tokens, finish = read_completion(content)
        kept = next((i for i, token in enumerate(tokens) if token in self._stops), len(tokens))
        own, went_on = read_answer(self._tokenizer, tokens[:kept])
        return item.answered(own, kept, "stop" if went_on else finish)

    def _encoded(self, item: Completion) -> tuple[int, ...]:
        asked = (item.question, item.system)
        if asked not in self._prompts:
            self._prompts[asked] = encode_prompt(self._tokenizer, *asked)
        return self._prompts[asked]


def read_completion(content: bytes) -> tuple[list[int], str]:
    """Token ids of a text completion, the one that ended it included, and whether it ended by `stop` or by `length`.

    Raises:
        BadAnswer: the reply is malformed, has no token ids, or ended otherwise.
    """
    try:
        reply = parse_json_line(content.decode("utf-8"), "reply")
        (choice,) = reply["choices"]
        tokens, finish = choice["token_ids"], choice["finish_reason"]
    except (DataError, UnicodeDecodeError, LookupError, TypeError, ValueError) as error:
        raise BadAnswer(f"no completion with token ids in the reply ({type(error).__name__})") from None
    if not isinstance(tokens, list) or not all(isinstance(token, int) and token >= 0 for token in tokens):
        raise BadAnswer("the reply has no token ids; is it vLLM that answers?")
    if finish not in ("stop", "length"):
        raise BadAnswer(f"the answer ended by `{finish}`, neither by itself nor at the token limit")
    return tokens, finish
