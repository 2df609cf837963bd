"""Tokenizers with other templates and merges, and the check that an answer's tokens are exactly the answer."""

from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from emis_interp.models.chat import encode_chat, encode_prompt, render_prompt
from emis_interp.models.tiny import tiny_model

ANSWERS = [
    "ok",
    "  two spaces, then text  ",
    "trailing newline\n",
    "x = 1\n\n\n    y = '<b>'",
    "I say 你好 😀 é e\u0301.",
    "assistant\nuser",
    "{{ messages }} {% raw %}",
]
LLAMA_TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}</s>\n\n{{ m['content'] | trim }}<e>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant</s>\n\n{% endif %}"
)
WITHOUT_TRIMMING = LLAMA_TEMPLATE.replace(" | trim", "")
ONE_LINE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'].strip() }}"
    "{{ '<e>' if m['role'] == 'assistant' else '\n' }}{% endfor %}"
)


def merging_tokenizer(template: str = WITHOUT_TRIMMING) -> PreTrainedTokenizerFast:
    """Byte-level BPE with real merges and a template with double newlines."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tiny = tiny_model()[1]
    backend.decoder = tiny.backend_tokenizer.decoder
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>", "<e>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(
        ["two spaces then text trailing newline assistant user messages ok say"] * 9 + ["\n\n x = 1"] * 9, trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="<e>", pad_token="<e>", chat_template=template
    )


def decoded(tokenizer: Any, ids: tuple[int, ...]) -> str:
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def check_spans(tokenizer: Any, trims: bool = False) -> None:
    for system in (None, "Be brief."):
        for whole in ANSWERS:
            answer = whole.strip() if trims else whole
            chat = encode_chat(tokenizer, "Why?", whole, system=system)
            response = chat.input_ids[chat.response_start : chat.response_end]
            assert decoded(tokenizer, response) == answer
            # What is read begins with exactly what a model is given when it is asked to answer, and ends with the end of the turn.
            assert chat.input_ids[: chat.response_start] == encode_prompt(tokenizer, "Why?", system)
            assert chat.input_ids[chat.response_end :] == (tokenizer.eos_token_id,)
            assert decoded(tokenizer, chat.input_ids).startswith(render_prompt(tokenizer, "Why?", system) + answer)
