"""llama.cpp's C functions out of the `xllamacpp` wheel: next-token logits of a GGUF with control vectors in place.

The wheel's Python side cannot be given a control vector, its library can. Parameter structures are only handed from function to
function, so a block of bytes larger than either serves (System V calling convention of x86-64: such structures travel in memory).
"""

import ctypes
import importlib.util
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest


class Params(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_char * 2048)]


class TokenBatch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ["token", "embd", "pos", "n_seq", "seq", "logits"]),
    ]


def library() -> ctypes.CDLL:
    """The wheel's shared library, or a skip with the reason."""
    found = importlib.util.find_spec("xllamacpp")
    if found is None or found.origin is None:
        pytest.skip('xllamacpp is not installed: pip install "emis-interp[server]"')
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("calls the library by the convention of Linux on x86-64")
    return ctypes.CDLL(str(next(Path(found.origin).parent.glob("*.so"))))


class Llama:
    """One model and context; `logits` gives those after the last token."""

    def __init__(self, gguf: Path, n_vocab: int) -> None:
        self.library, self.n_vocab = library(), n_vocab
        call = self.call
        call("llama_log_set", None, ctypes.c_void_p, ctypes.c_void_p)(None, None)
        call("llama_backend_init", None)()
        path = str(gguf).encode()
        load = call("llama_model_load_from_file", ctypes.c_void_p, ctypes.c_char_p, Params)
        self.model = load(path, call("llama_model_default_params", Params)())
        start = call("llama_init_from_model", ctypes.c_void_p, ctypes.c_void_p, Params)
        self.context = start(self.model, call("llama_context_default_params", Params)())
        assert self.model and self.context

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(self.library, name)
        function.restype, function.argtypes = result, list(arguments)
        return function

    def steer(self, vectors: Mapping[int, np.ndarray], n_layers: int, strength: float = 1.0) -> None:
        """Lay the vectors out as llama.cpp's loader does: row N - 1 belongs to block N."""
        width = len(next(iter(vectors.values())))
        rows = np.zeros((n_layers - 1, width), dtype=np.float32)
        for layer, vector in vectors.items():
            rows[layer - 1] = strength * vector
        arguments = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32)
        place = self.call("llama_set_adapter_cvec", ctypes.c_int32, *arguments)
        assert place(self.context, rows.ctypes.data, rows.size, width, 1, n_layers) == 0

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        memory = self.call("llama_get_memory", ctypes.c_void_p, ctypes.c_void_p)(self.context)
        self.call("llama_memory_clear", None, ctypes.c_void_p, ctypes.c_bool)(memory, True)
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        one = self.call("llama_batch_get_one", TokenBatch, ctypes.c_void_p, ctypes.c_int32)
        decode = self.call("llama_decode", ctypes.c_int32, ctypes.c_void_p, TokenBatch)
        assert decode(self.context, one(ctypes.cast(tokens, ctypes.c_void_p), len(ids))) == 0
        last = self.call("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), ctypes.c_void_p, ctypes.c_int32)
        return np.ctypeslib.as_array(last(self.context, -1), (self.n_vocab,)).copy()
