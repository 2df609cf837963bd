"""Turns anyio's rule for its classes into one that a process with nnsight in it can keep.

nnsight gives every Python object a method `save`. anyio, on which httpx, openai and inspect-ai stand, makes many of its classes at their
first use (since 4.16) and refuses one whose public attributes it does not declare: with nnsight in the process, that is each of them.
"""

import anyio

MOUNTED = ("save",)
"""What nnsight 0.8 mounts on `object` (`nnsight/__init__.py`)."""


def allow_mounted_names() -> None:
    """Declare on anyio's base class what is mounted on every object, or will be; it holds for every class made afterwards."""
    base = anyio.TypedAttributeSet
    everywhere = {name for name in dir(object) if not name.startswith("_")}
    base.__annotations__ = {**getattr(base, "__annotations__", {}), **dict.fromkeys({*MOUNTED, *everywhere}, object)}
