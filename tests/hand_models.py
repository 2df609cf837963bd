"""Models whose numbers can be worked out by hand."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn


class HandModel(nn.Module):
    """Token t becomes (t, 2t), which goes through the blocks one after the other."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding.from_pretrained(torch.arange(300.0)[:, None] * torch.tensor([1.0, 2.0]))
        self.layers = nn.ModuleList(blocks)
        sizes = SimpleNamespace(num_hidden_layers=len(blocks), hidden_size=2)
        self.config = SimpleNamespace(get_text_config=lambda: sizes)

    def get_decoder(self) -> "HandModel":
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, use_cache: bool) -> Tensor:
        hidden = self.embed(input_ids)
        for layer in self.layers:
            output = layer(hidden)
            hidden = output[0] if isinstance(output, tuple) else output
        return hidden
