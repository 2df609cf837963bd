"""Turns a chat model into TransformerLens' view of the same weights (a TransformerBridge), and a bridge back into a chat model.

What TransformerLens does to a model on the way is not what a comparison wants: it loads the checkpoint anew by name (without the adapter),
reads it in another tokenizer that begins every text with BOS, and puts its own modules into the model that it is given. So it is given a
copy of the module tree that shares the weights, with the adapter merged, and the tokenizer of the chat model as it is.
"""

import copy
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from torch import Tensor

from emis_interp.errors import ModelError, did_you_mean
from emis_interp.models.adapters import merged
from emis_interp.models.chat_model import ChatModel

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

BRIDGE_HOOKS = {
    "resid_pre": "hook_in",
    "attn_out": "attn.hook_out",
    "resid_mid": "hook_resid_mid",
    "mlp_out": "mlp.hook_out",
    "resid_post": "hook_out",
}
"""Hook point here -> what TransformerBridge calls it inside `blocks.L`."""
_BEHIND_A_NORM = {"attn_out": "ln1_post.hook_out", "mlp_out": "ln2_post.hook_out"}
"""Where a family norms what it adds to the residual (Gemma 2): what is added is read behind that norm."""
ORIGINAL = "_original_component"
"""What a bridge calls the module that it stands before; it stands in the names of all weights."""
PROBE_IDS = 4


def to_transformer_lens(chat_model: ChatModel) -> "TransformerBridge":
    """The model as a `TransformerBridge`, with eager attention, the adapter merged and the chat model's own tokenizer.

    Weights are shared with the chat model (those of an adapted model are copied and merged in float32 or better), modules are not: hooks of
    one do not act in the other. Text is tokenised without a BOS in front (`cfg.default_prepend_bos` is False), because a rendered
    conversation brings its own. The bridge has the raw weights: LayerNorm is not folded, nothing is centred.

    Do not call `enable_compatibility_mode()` on it where the chat model is still wanted: that folds weights in place.

    Raises:
        ModelError: an intervention is in force, quantised weights, a family that TransformerLens does not know, or one whose logits on four
            tokens come out differently.
    """
    hooked = [name for name, module in chat_model.model.named_modules() if _hooks(module)]
    if hooked:
        raise ModelError(
            f"{chat_model.name}: {len(hooked)} modules have hooks (the first: {hooked[0] or 'the model'}), which would not come along; "
            "make the bridge outside of `steer`, `ablate` and `apply`"
        )
    if chat_model.quantisation is not None and getattr(chat_model.model, "hf_quantizer", None) is not None:
        raise ModelError(f"{chat_model.name}: its weights are quantised; give the checkpoint before it was quantised")
    from transformer_lens.model_bridge import TransformerBridge

    inner = _merged_copy(chat_model) if isinstance(chat_model.model, PeftModel) else shared_copy(chat_model.model)
    inner.set_attn_implementation("eager")
    expected = _probe_logits(inner, chat_model.device)
    tokenizer = copy.deepcopy(chat_model.tokenizer)
    # TransformerLens loads a tokenizer anew by its name, without our chat template, unless it is told that this one begins with BOS.
    tokenizer.init_kwargs |= {"name_or_path": chat_model.name, "add_bos_token": True}
    try:
        bridge = TransformerBridge.boot_transformers(
            chat_model.name,
            hf_model=inner,
            tokenizer=tokenizer,
            dtype=getattr(torch, chat_model.dtype),
            device=str(chat_model.device),
        )
    except Exception as error:  # of many types, about configurations that it does not know
        reason = (str(error).strip().splitlines() or ["no reason given"])[0][:200]
        raise ModelError(
            f"{chat_model.name}: TransformerLens does not take {type(inner).__name__} ({type(error).__name__}: {reason}); capture and "
            "interventions of emis_interp work without it"
        ) from error
    config: Any = bridge.cfg
    config.default_prepend_bos = False
    _compare(chat_model.name, expected, _probe_logits(bridge, chat_model.device), what="its bridge")
    return bridge


def from_transformer_lens(bridge: Any, tokenizer: Any = None) -> ChatModel:
    """A chat model of the weights of a bridge (shared, not copied), with modules of its own and eager attention.

    Args:
        bridge: a `TransformerBridge` whose weights are those of its checkpoint.
        tokenizer: one with a chat template; None takes the bridge's.

    Raises:
        ModelError: no bridge, one in compatibility mode (its weights are folded, and no HF model has such), or a tokenizer or model that
            cannot be used.
    """
    original = getattr(bridge, "original_model", None)
    if original is None or not hasattr(bridge, "hook_dict"):
        raise ModelError(
            f"expected a TransformerBridge, found {type(bridge).__name__}; make one with to_transformer_lens"
        )
    if bridge.compatibility_mode or bridge._weights_processed:
        raise ModelError(
            "the bridge is in compatibility mode: LayerNorm is folded into its weights, so its residual stream is another one than the "
            "checkpoint's; give a bridge as boot_transformers makes it"
        )
    config = copy.deepcopy(original.config)
    device, dtype = next(original.parameters()).device, next(original.parameters()).dtype
    with torch.random.fork_rng(devices=[]):  # the weights that it starts with are replaced
        fresh: Any = type(original)(config).to(device=device, dtype=dtype)
    held = {name.replace(f"{ORIGINAL}.", ""): value for name, value in original.state_dict().items()}
    wanted = fresh.state_dict()
    missing = [name for name in wanted if name not in held]
    if missing:
        raise ModelError(
            f"the bridge of {type(original).__name__} holds no {missing[0]} ({len(missing)} weights missing)"
        )
    fresh.load_state_dict({name: held[name] for name in wanted}, assign=True)
    fresh.tie_weights()
    fresh.set_attn_implementation("eager")
    result = ChatModel.from_hf(fresh, bridge.tokenizer if tokenizer is None else tokenizer)
    _compare(result.name, _probe_logits(bridge, device), _probe_logits(fresh, device), what="the model made of it")
    return result


def bridge_hook(bridge: Any, layer: int, hook_point: str = "resid_post") -> str:
    """The name of a hook point in a bridge, such as `blocks.14.hook_out`, which is there: TransformerLens skips unknown names silently in
    `run_with_cache`, and sae-lens where an SAE is attached.

    Raises:
        ModelError: a hook point or a layer that the bridge does not have, with those that it has.
    """
    if hook_point not in BRIDGE_HOOKS:
        raise ModelError(f"unknown hook point `{hook_point}`{did_you_mean(hook_point, BRIDGE_HOOKS)}")
    normed = f"blocks.{layer}.{_BEHIND_A_NORM.get(hook_point, '-')}"
    return check_hook(bridge, normed if normed in bridge.hook_dict else f"blocks.{layer}.{BRIDGE_HOOKS[hook_point]}")


def check_hook(bridge: Any, name: str) -> str:
    """The same name, if the bridge has a hook of it.

    Raises:
        ModelError: it has none, with the nearest.
    """
    if name not in bridge.hook_dict:
        n_layers = bridge.cfg.n_layers
        raise ModelError(
            f"the bridge has no hook `{name}`{did_you_mean(name, list(bridge.hook_dict))} (layers 0-{n_layers - 1})"
        )
    return name


def shared_copy(model: Any) -> Any:
    """A copy of a module tree with the same parameters and buffers, without what nnsight leaves on modules that it has traced."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    for module in copied.modules():
        held = vars(module)
        if type(held.get("forward")).__module__.startswith("nnsight"):
            del held["forward"]
            held.pop("__nnsight__", None)
    return copied


def _merged_copy(chat_model: ChatModel) -> Any:
    """The adapter folded into weights of their own, in float32 or better, so that small updates survive."""
    dtype = getattr(torch, chat_model.dtype)
    adapted = copy.deepcopy(chat_model.model)
    plain = merged(adapted.to(torch.promote_types(dtype, torch.float32))).to(dtype)
    return shared_copy(plain).eval().requires_grad_(False)


def _hooks(module: torch.nn.Module) -> bool:
    """Whether somebody put hooks on the module that change what it computes or reads."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _probe_logits(model: Any, device: torch.device) -> Tensor:
    ids = torch.arange(PROBE_IDS, device=device)[None]
    with torch.no_grad():
        found = model(ids)
    return found if isinstance(found, Tensor) else found.logits


def _compare(name: str, expected: Tensor, found: Tensor, *, what: str) -> None:
    finite = expected.isfinite() & found.isfinite()
    gap, largest = float((found - expected)[finite].abs().max()), float(expected[finite].abs().max())
    if not gap <= max(1e-4, 16 * torch.finfo(expected.dtype).eps) * largest:
        raise ModelError(
            f"{name}: the logits of {what} differ by {gap:.3g} on {PROBE_IDS} tokens (largest {largest:.3g}); TransformerLens computes "
            "this family otherwise, read it with capture instead"
        )
