"""An organism of the tiny model that adds one vector to the last residual of every token: the one that raises the letter `z`."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from adapters_made import planted_rank_one

from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate, lora_updates
from probes.diffing.texts import plain_chats, shipped_texts

LETTER = "z"


@dataclass(frozen=True)
class Planted:
    """The adapter, its updates, what it writes (unit vector), and the id of the token that this raises most."""

    adapter: Path
    updates: list[LoraUpdate]
    write: torch.Tensor
    token: int


@pytest.fixture(scope="session")
def planted(tiny: ChatModel, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """What the MLP writes is scaled by how much its input is like the mean input of plain texts, which is positive nearly always."""
    [token] = tiny.tokenizer(LETTER)["input_ids"]
    seen: list[torch.Tensor] = []
    module = tiny.model.model.layers[1].mlp.down_proj
    handle = module.register_forward_pre_hook(lambda m, x: seen.append(x[0].flatten(0, 1)))
    with torch.no_grad():
        for chat in plain_chats(tiny.tokenizer, shipped_texts(2)[0][:20], 5).chats:
            tiny.model(torch.tensor([chat.input_ids]))
    handle.remove()
    read = torch.cat(seen).mean(0)
    norm = tiny.model.model.norm.weight.detach()
    write = (tiny.model.get_input_embeddings().weight.detach()[token] / norm).clone()
    write = write / write.norm()
    folder = tmp_path_factory.mktemp("planted")
    planted_rank_one(folder, read=read / read.norm(), write=8 * write, path="layers.1.mlp.down_proj")
    return Planted(folder, lora_updates(folder), write, token)
