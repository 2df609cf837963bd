"""Turns the dtype `auto` into bfloat16 where the device computes it in hardware, else into float32.

A processor without bfloat16 instructions emulates it: there, a forward pass of the embedded model takes about six times as long as in
float32, and training far longer still. So no default may be a fixed bfloat16.
"""

from typing import TYPE_CHECKING

from emis_interp.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    import torch

AUTO = "auto"
DTYPES = ("float32", "bfloat16", "float16", "float64")
KNOWN_DEVICES = "known: auto, cpu, cuda, cuda:0, cuda:1, ..., mps"
DTYPE_HELP = "of the weights: float32, bfloat16, float16, or auto: bfloat16 where the device computes it in hardware, else float32"
CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
"""Any of these in `torch.cpu.get_capabilities()` is enough: two kinds of x86 instructions, and those of ARM."""


def target_device(device: str) -> str:
    """`auto` is cuda when there is one, else the processor."""
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if device == AUTO else device


def check_device(device: str) -> str:
    """The device that a name means, `auto` replaced, if this machine has it.

    Raises:
        ModelError: no device's name, or one that is not here.
    """
    import torch

    name = target_device(device)
    try:
        found = torch.device(name)
    except RuntimeError:
        raise ModelError(f"unknown device `{device}`; {KNOWN_DEVICES}") from None
    if found.type == "cuda":
        n = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if n == 0:
            why = "is built without CUDA" if torch.version.cuda is None else "finds no CUDA GPU"
            raise ModelError(f"device {device}: torch {torch.__version__} {why}; give device auto or cpu")
        if (found.index or 0) >= n:
            raise ModelError(f"device {device}: this machine has {n} CUDA devices (cuda:0 to cuda:{n - 1})")
    elif found.type != "cpu":
        try:
            torch.ones(1, device=found).item()
        except Exception as error:  # every backend has its own way of not being there
            raise ModelError(
                f"device {device} cannot be used ({str(error).splitlines()[0][:80]}); give device auto or cpu"
            ) from None
    return name


def native_dtype(device: str = AUTO) -> str:
    """What `auto` means on a device: `bfloat16` or `float32`. Devices other than cuda and cpu get float32.

    Raises:
        ModelError: no device's name.
    """
    import torch

    try:
        target = torch.device(target_device(device))
    except RuntimeError:
        raise ModelError(f"unknown device `{device}`; {KNOWN_DEVICES}") from None
    if target.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        found = torch.cpu.get_capabilities()
        native = target.type == "cpu" and any(found.get(name, False) for name in CPU_BFLOAT16)
    return "bfloat16" if native else "float32"


def uses_bfloat16(wanted: bool | None, device: str = AUTO) -> bool:
    """What is wanted, or where nobody said: whether the device computes bfloat16 in hardware."""
    return native_dtype(device) == "bfloat16" if wanted is None else wanted


def dtype_name(dtype: str, device: str = AUTO) -> str:
    """The name of a dtype, with `auto` replaced by what it means on the device.

    Raises:
        ModelError: unknown dtype, with the nearest one.
    """
    if dtype == AUTO:
        return native_dtype(device)
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype `{dtype}`{did_you_mean(dtype, [AUTO, *DTYPES])}")
    return dtype


def torch_dtype(dtype: str, device: str = AUTO) -> "torch.dtype":
    """The dtype of a name, as `dtype_name` understands it."""
    import torch

    return getattr(torch, dtype_name(dtype, device))
