"""Turns GGUF files into what their header says of the model, and the parts of a split one into one file.

Parts are named as llama.cpp names them, `NAME-00001-of-00003.gguf`; the first holds the header, each a share of the tensors.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emis_interp.errors import ModelError
from emis_interp.files.cells import short
from emis_interp.files.names import shown

DEQUANTISED_FROM = "dequantised_from"
"""Entry of a configuration: the quantisation of the GGUF whose weights these are."""
PART = re.compile(r"(?P<name>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF says of its model.

    Attributes:
        architecture: as llama.cpp names it (`qwen2`).
        quantisation: as files are named by it (`Q4_K_M`, `F16`), or the type of most weights where the file does not say.
        n_parameters: of all tensors.
        n_layers, d_model: decoder blocks and width of the residual stream; None where the file does not say.
    """

    architecture: str
    quantisation: str
    n_parameters: int
    n_layers: int | None = None
    d_model: int | None = None


def parts_of(path: Path) -> list[Path]:
    """All files of a GGUF, in their order; any part stands for the whole.

    Raises:
        ModelError: a part is missing.
    """
    if (found := PART.fullmatch(path.name)) is None:
        return [path]
    count = int(found["count"])
    parts = [path.with_name(f"{found['name']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    if missing := [part.name for part in parts if not part.is_file()]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"{path}: part of a model in {count} files, {missing[0]}{more} is missing; put all of them into one folder"
        )
    return parts


def read_header(parts: list[Path]) -> GgufHeader:
    """Raises ModelError when a file is no GGUF, not of the model's parts, or has a header that does not say what a model's does."""
    readers = [_reader(part) for part in parts]
    tensors = [tensor for reader in readers for tensor in reader.tensors]
    architecture = _architecture(readers[0], parts[0])
    expected = _field(readers[0], "split.tensors.count", parts[0])
    if expected is not None and len(tensors) != expected:
        raise ModelError(
            f"{parts[0]}: its header speaks of {shown(str(expected))} tensors, its files hold {len(tensors)}; download them again"
        )
    if not tensors:
        raise ModelError(f"{parts[0]}: a GGUF without tensors; give the file of a whole model")
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.tensor_type.name] = sizes.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    quantisation = _file_type(_field(readers[0], "general.file_type", parts[0])) or max(
        sizes, key=lambda name: sizes[name]
    )
    n_layers, d_model = (
        _count(_field(readers[0], f"{architecture}.{name}", parts[0])) for name in ("block_count", "embedding_length")
    )
    return GgufHeader(architecture, quantisation, sum(sizes.values()), n_layers, d_model)


def _architecture(reader: Any, path: Path) -> str:
    found = _field(reader, "general.architecture", path)
    if found is None:
        raise ModelError(
            f"{path}: a GGUF without a model's header (no general.architecture); give the file of a whole model"
        )
    if not isinstance(found, str):
        raise ModelError(f"{path}: its general.architecture is {short(str(found))}, expected a name; download it again")
    return found


def _field(reader: Any, name: str, path: Path) -> Any:
    """An entry of the header; None where there is none."""
    if name not in reader.fields:
        return None
    with _whole(f"{path}: its {shown(name)} cannot be read"):  # the reader has looked at lengths alone
        return reader.fields[name].contents()


def _count(found: Any) -> int | None:
    return found if isinstance(found, int) and found > 0 else None


def join(parts: list[Path], target: Path) -> None:
    """Write the parts of a split GGUF as one file."""
    from gguf import GGUFValueType, GGUFWriter

    readers = [_reader(part) for part in parts]
    writer = GGUFWriter(target, _architecture(readers[0], parts[0]))
    for field in readers[0].fields.values():
        if field.name.startswith(("GGUF.", "split.")) or field.name == "general.architecture":
            continue
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, _field(readers[0], field.name, parts[0]), field.types[0], sub_type=inner)
    tensors = [tensor for reader in readers for tensor in reader.tensors]
    for tensor in tensors:
        data = tensor.data
        writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(tensor.data)
    writer.close()


def _reader(path: Path) -> Any:
    with _whole(f"{path}: is no whole GGUF"):
        return bounded_reader(path)


@contextmanager
def _whole(problem: str) -> Iterator[None]:
    """Whatever the library raises inside is a ModelError: the problem, and what it says of it."""
    try:
        yield
    except Exception as error:  # a struct error, an index error, text that is no text: whatever the bytes lead to
        line = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ModelError(f"{problem} ({type(error).__name__}: {line[:200]}); download it again") from error


def bounded_reader(path: Path) -> Any:
    """The library's `GGUFReader`, which reads nothing where the file has ended: an array that claims 2**62 numbers is an error here, where
    the library counts them.

    Raises:
        Exception: whatever the library raises, which promises nothing about damaged files.
    """
    import numpy as np
    from gguf import GGUFReader

    class Bounded(GGUFReader):
        def _get(self, offset: int, dtype: Any, count: Any = 1, **order: Any) -> Any:
            end = int(offset) + np.dtype(dtype).itemsize * int(count)
            if end > len(self.data):
                raise ValueError(f"the file ends at byte {len(self.data)}, its header asks for byte {end}")
            return super()._get(offset, dtype, count, **order)

    return Bounded(path)


def _file_type(number: Any) -> str | None:
    """`Q4_K_M` for `LlamaFileType.MOSTLY_Q4_K_M`."""
    from gguf import LlamaFileType

    if not isinstance(number, int) or number not in LlamaFileType._value2member_map_:
        return None
    return LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_")
