"""Turns a model name (and an adapter) into a `ChatModel`: weights, tokenizer, and where its decoder layers are.

A name is `smollm2-135m-instruct` (embedded, see `embedded`), `tiny` (random two-layer model for tests), a local folder, or a hub id.
"""

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel, load_peft_weights
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from emis_interp.embedded import EMBEDDED_NAME, embedded_path
from emis_interp.errors import ConfigError, ModelError, did_you_mean
from emis_interp.models.tokenizers import check_tokenizer as check_tokenizer
from emis_interp.models.tokenizers import check_vocabulary, length_of, read_tokenizer, ready_tokenizer
from emis_interp.precision import DTYPES, dtype_name, native_dtype, target_device

log = logging.getLogger(__name__)

TINY_NAME = "tiny"
TINY_LENGTH = 4096
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class ChatModel:
    """A causal language model in evaluation mode with its tokenizer.

    Attributes:
        model: the HF model, or a PeftModel around it.
        tokenizer: its fast HF tokenizer, with a chat template and a padding token.
        name: the name it was asked for by; `adapter` the folder of its PEFT adapter, if any.
    """

    model: Any
    tokenizer: Any
    name: str
    adapter: Path | None = None

    @property
    def body(self) -> Any:
        """The decoder without its language-model head (adapter layers included)."""
        inner: Any = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        return inner.get_decoder()

    @property
    def layers_name(self) -> str:
        """Name of the list of decoder blocks inside `body` (`layers` in Llama, `h` in GPT-2)."""
        for name, child in self.body.named_children():
            if isinstance(child, torch.nn.ModuleList) and len(child) == self.n_layers:
                return name
        raise ModelError(f"{self.name}: no list of {self.n_layers} decoder blocks found in {type(self.body).__name__}")

    @property
    def layers(self) -> torch.nn.ModuleList:
        return getattr(self.body, self.layers_name)

    @property
    def n_layers(self) -> int:
        return self.model.config.get_text_config().num_hidden_layers

    @property
    def d_model(self) -> int:
        return self.model.config.get_text_config().hidden_size

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> str:
        """Name of the weights' dtype, such as `float32`."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    def check_layers(self, layers: list[int]) -> list[int]:
        """The same layers, or a ModelError when one is outside 0..n_layers-1."""
        for layer in layers:
            if not 0 <= layer < self.n_layers:
                raise ModelError(f"layer {layer} asked for, {self.name} has {self.n_layers} (0-{self.n_layers - 1})")
        return layers


def load_model(
    name: str,
    adapter: Path | None = None,
    dtype: str = "float32",
    device: str = "auto",
    merge: bool = False,
    load_in_4bit: bool = False,
    chat_format: str | None = None,
    *,
    tokenizer_of: Path | None = None,
) -> ChatModel:
    """Load a model by name, and a PEFT adapter on top of it.

    Args:
        adapter: folder with `adapter_config.json`; None for the bare model.
        dtype: of the weights (`auto`: see `precision`); an adapter is merged (or kept) in float32 before the cast, so that small
            updates survive.
        device: `auto` (cuda when there is one), `cpu`, `cuda`, `cuda:1`, ...
        merge: fold the adapter into the weights (faster; the result is a plain HF model).
        load_in_4bit: quantise the weights as QLoRA does (`four_bit_arguments`), to train an adapter on them.
        chat_format: renders conversations in a plain format of `chat_formats`, for pretrained models; None: the template of the adapter's
            own tokenizer, where its folder holds one, else the model's.
        tokenizer_of: folder of an adapter whose tokenizer and chat template are used, although its weights are not: for reading base as
            an organism is read.

    Raises:
        ModelError: unknown name, unknown dtype, no chat template and no format, no adapter in the folder, or an adapter of another model.
        ConfigError: 4 bits asked for without CUDA or bitsandbytes, or together with an adapter.
    """
    weights_dtype = DTYPES[dtype_name(dtype, device)]
    load_dtype = torch.float32 if adapter is not None else weights_dtype
    if weights_dtype == torch.bfloat16 and native_dtype(device) != "bfloat16":
        log.warning("this device emulates bfloat16, several times slower than float32; give dtype auto or float32")
    tokenizer = load_tokenizer(name, chat_format, adapter or tokenizer_of)
    model: Any
    target = target_device(device)
    if load_in_4bit and adapter is not None:
        raise ConfigError("load_in_4bit is for training a new adapter; load the model in bfloat16 to use one")
    quantised = four_bit_arguments(target) if load_in_4bit else {}
    if name == TINY_NAME and not load_in_4bit:
        model = tiny_model()[0].to(load_dtype)
    else:
        model = AutoModelForCausalLM.from_pretrained(resolve(name), dtype=load_dtype, **quantised)
    if adapter is not None:
        if not (adapter / "adapter_config.json").exists():
            raise ModelError(
                f"{adapter}: no adapter_config.json there; give the folder that training wrote, e.g. runs/NAME/training/ARM/adapter"
            )
        try:
            model = PeftModel.from_pretrained(model, str(adapter))
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{adapter}: this adapter does not fit {name} ({str(error).splitlines()[0]})") from error
        # PEFT skips weights for layers that the model lacks, and leaves layers without weights at random ones.
        held, taken = (
            sum(".lora_" in key for key in keys)
            for keys in (load_peft_weights(str(adapter), "cpu"), model.state_dict())
        )
        if held != taken:
            raise ModelError(
                f"{adapter}: this adapter does not fit {name} (it holds {held} LoRA weights, the model takes {taken})"
            )
        if merge:
            model = model.merge_and_unload()
        model = model.to(weights_dtype)
    if not load_in_4bit:  # quantised weights were put where they belong, and refuse to move
        model = model.to(target)
    model = model.eval()
    model.requires_grad_(False)
    check_vocabulary(name if adapter is None else str(adapter), tokenizer, len(model.get_input_embeddings().weight))
    return ChatModel(model, tokenizer, name, adapter)


def four_bit_arguments(device: str) -> dict[str, Any]:
    """What `from_pretrained` is told for 4-bit weights: NF4, doubly quantised, computed in bfloat16 (Dettmers et al. 2023, section 3).

    The weights are stored as bfloat16 words, which FSDP can shard.

    Raises:
        ConfigError: no CUDA device, or bitsandbytes is not installed.
    """
    if not device.startswith("cuda") or not torch.cuda.is_available():
        raise ConfigError(f"load_in_4bit: needs a CUDA GPU, the device is {device}; set load_in_4bit to false")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("load_in_4bit: bitsandbytes is not installed; it is optional: pip install bitsandbytes")
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_storage=torch.bfloat16,
    )
    return {"quantization_config": quantization, "device_map": {"": device}}


def load_tokenizer(name: str, chat_format: str | None = None, adapter: Path | None = None) -> Any:
    """The tokenizer of a model by name, without its weights; `chat_format` and `adapter` as in `load_model`.

    Its `model_max_length` is the length of context that the model's configuration declares, where it declares one.

    Raises:
        ModelError: unknown name, or a tokenizer that `ready_tokenizer` refuses.
    """
    if name == TINY_NAME:
        base, length = tiny_tokenizer(), TINY_LENGTH
    else:
        path = resolve(name)
        base, length = read_tokenizer(path), length_of(path)
    tokenizer = ready_tokenizer(name, base, chat_format, adapter)
    tokenizer.model_max_length = length or tokenizer.model_max_length
    return tokenizer


def head_logits(model: Any, hidden: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
    """Logits of chosen hidden states, with the scaling that some families apply after the head (Gemma 2, Cohere, Granite).

    Computing them only where they are needed saves most of the cost of a large vocabulary.
    """
    logits = model.get_output_embeddings()(hidden)
    config = model.config.get_text_config()
    if getattr(config, "logit_scale", None) is not None:
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None) is not None:
        logits = logits / config.logits_scaling
    if getattr(config, "final_logit_softcapping", None) is not None:
        logits = torch.tanh(logits / config.final_logit_softcapping) * config.final_logit_softcapping
    return logits


def resolve(name: str) -> str:
    """The path or hub id behind a name; fetches the embedded model when needed."""
    if name == EMBEDDED_NAME:
        return str(embedded_path())
    if (Path(name) / "config.json").exists():
        return name
    if Path(name).exists():
        raise ModelError(f"{name}: is there but holds no config.json; give the folder of a saved HF model")
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return _reachable_hub_id(name)
    raise ModelError(
        f"unknown model `{name}`{did_you_mean(name, [EMBEDDED_NAME, TINY_NAME])} (a folder or a hub id owner/name works too)"
    )


def _reachable_hub_id(name: str) -> str:
    """`name` when its config is in the hub cache or can be fetched."""
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(name, "config.json")
    except Exception as error:  # the hub client raises many unrelated types; all mean that the name cannot be used
        raise ModelError(
            f"model `{name}`: no such folder, and the model hub did not deliver it ({type(error).__name__}); "
            f"check the name and the connection, or use the embedded `{EMBEDDED_NAME}`"
        ) from error
    return name


def tiny_tokenizer() -> Any:
    """Bytes as tokens, with a ChatML template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|im_start|>", "<|im_end|>"]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(special + alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=special[0], eos_token=special[1], pad_token=special[1], chat_template=CHATML
    )


def tiny_model() -> tuple[Any, Any]:
    """A random two-layer Llama (d_model 32) over bytes with a ChatML template; the same weights every time."""
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=TINY_LENGTH,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config), tokenizer
