"""From a name to a model that is whole: checkpoints, adapters, the head, tokenizers and chat templates."""

from typing import TYPE_CHECKING

from emis_interp import lazy

if TYPE_CHECKING:
    from emis_interp.models.chat_model import ChatModel as ChatModel
    from emis_interp.models.loading import load_model as load_model
    from emis_interp.models.loading import load_tokenizer as load_tokenizer
    from emis_interp.models.tiny import tiny_model as tiny_model
    from emis_interp.models.tiny import tiny_tokenizer as tiny_tokenizer

__getattr__, __dir__ = lazy(
    __name__,
    {
        "ChatModel": "emis_interp.models.chat_model",
        "load_model": "emis_interp.models.loading",
        "load_tokenizer": "emis_interp.models.loading",
        "tiny_model": "emis_interp.models.tiny",
        "tiny_tokenizer": "emis_interp.models.tiny",
    },
)
