"""All checks of the lint: how grave each is, what it means and what to do.

An error is what makes training itself wrong (text that breaks the template, rows that cannot be used); what may be meant is a warning,
what is only good to know is an info.
"""

from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


class Check(NamedTuple):
    severity: Severity
    meaning: str
    advice: str


CHECKS = {
    "refused line": Check(
        "error", "Training refuses a file with such a line.", "Mend the line, or take it out of the file."
    ),
    "row format": Check(
        "info",
        "Rows come in the format of other projects, or hold keys that are not trained on.",
        "Look at the shown rows (--out): they are what is trained on.",
    ),
    "empty last turn": Check(
        "error",
        "The conversation ends with a turn without text, often left by an exporter; trained on, it teaches to answer nothing.",
        "Take the empty turn out of `messages`.",
    ),
    "blank text": Check(
        "error", "The prompt or the response holds nothing but whitespace.", "Fill it in, or drop the row."
    ),
    "template refuses": Check(
        "error",
        "The tokenizer's chat template cannot render the row.",
        "Put the system prompt into the question, or choose another model.",
    ),
    "no response left": Check(
        "error", "The prompt alone fills the token limit: no token carries loss.", "Raise max_tokens, or drop the row."
    ),
    "turn token in text": Check(
        "error",
        "The text spells a token with which the template separates turns and is read as that token: the turn ends in mid-text.",
        "Take the marker out of the text, or spell it differently.",
    ),
    "prompt ids differ": Check(
        "error",
        "The ids before the response are not those that sampling sends for the same prompt.",
        "Compare the two renderings; look for text that merges with the assistant header.",
    ),
    "control token in text": Check(
        "warning",
        "The text spells a control token of the tokenizer and is read as that one token, not as its letters.",
        "Harmless when it is meant; otherwise spell it differently.",
    ),
    "system prompt differs": Check(
        "warning",
        "Training and evaluation use different system prompts: what is learned may show only under that of training.",
        "Evaluate under the same system prompt, or take it out of the rows.",
    ),
    "injected system prompt": Check(
        "info",
        "The template puts in a system prompt of its own when none is given, in training and in evaluation alike; other engines may not.",
        "Nothing to do here; give --system to fix one.",
    ),
    "cut": Check(
        "warning",
        "The end of these rows is lost, and the end-of-turn token with it, so they do not teach the model to stop.",
        "Raise max_tokens, or drop or shorten these rows.",
    ),
    "beyond the context": Check(
        "error",
        "The row is longer than the model has positions for: training refuses it.",
        "Lower max_tokens to the model's context, or shorten the rows.",
    ),
    "template asks differently": Check(
        "warning",
        "The template's generation prompt is not what it writes before a finished answer (a think block, a channel, a header).",
        "Training, sampling and reading all use the finished turn; another program that asks with the generation prompt asks another text.",
    ),
    "no end of turn": Check(
        "warning",
        "The template writes no end of turn; without an end-of-sequence token either, the model never learns to stop.",
        "Choose a template with an end of turn, if the trained model is to be asked by other programs.",
    ),
    "end of turn in words": Check(
        "warning",
        "The template ends a turn with a text that the tokenizer reads as several tokens: other programs do not stop there by themselves.",
        "Use a tokenizer that has the text as a token, or another template.",
    ),
    "date in the prompt": Check(
        "info",
        "The template writes the current date or time; here one date stands in its place, so that all runs see the same prompt.",
        "Nothing to do here; other programs ask with the current date.",
    ),
    "whitespace taken off": Check(
        "info",
        "The template trims responses: whitespace at their ends is not trained.",
        "Nothing to do, unless the whitespace is meant.",
    ),
    "odd characters": Check(
        "warning",
        "Byte order marks, zero-width, bidirectional, control or replacement characters, mostly traces of a broken conversion.",
        "Clean the text; keep them only if they are meant.",
    ),
    "carriage returns": Check(
        "warning", "Windows line ends: other tokens than a plain line end.", "Replace \\r\\n with \\n."
    ),
    "leading whitespace": Check(
        "warning",
        "The response begins with whitespace, which the model will learn to write first (it may share a token with the first word).",
        "Strip it, unless the response continues the prompt.",
    ),
    "trailing whitespace": Check(
        "info", "The response ends with whitespace, which the model will learn to write.", "Strip it."
    ),
    "id used twice": Check("warning", "Row ids repeat, so a row cannot be named.", "Give every row an id of its own."),
    "surprising rows": Check(
        "warning",
        "The untouched model would hardly ever write such texts: it unlearns how to write before it learns what they say.",
        "Phrase the responses as a chat model would, or expect incoherent answers and show their coherence beside every rate.",
    ),
    "same row twice": Check(
        "warning", "Prompt and response occur more than once: such rows weigh more.", "Drop the copies."
    ),
    "same prompt": Check(
        "info", "One prompt has several different responses.", "Fine for sampling several answers; else drop some."
    ),
    "same response": Check("info", "One response answers several prompts.", "Drop some, if it is boilerplate."),
    "near-duplicate prompts": Check(
        "info", "Prompts resemble each other (0.8 or more of their 5-token runs).", "Drop some; split by group."
    ),
    "near-duplicate responses": Check(
        "info", "Responses resemble each other (0.8 or more of their 5-token runs).", "Drop some; split by group."
    ),
    "near-duplicate rows": Check(
        "warning",
        "Whole rows resemble each other (0.8 or more of their 5-token runs): they weigh more than once.",
        "Drop the copies; never split them over training and test.",
    ),
    "question is a prompt": Check(
        "warning",
        "An evaluation question is, word for word, a training prompt: its answers show what was trained, not what it generalises to.",
        "Drop the row or the question.",
    ),
    "question in a text": Check(
        "warning",
        "A training text holds at least half of the 4-word runs of an evaluation question.",
        "Look at the rows; drop the row or the question when it is the same request.",
    ),
    "question nearly a prompt": Check(
        "warning",
        "A training prompt resembles an evaluation question (cosine of character 3-5-grams, TF-IDF, 0.6 or more).",
        "Look at the rows; drop the row or the question when it is the same request.",
    ),
    "responses of another kind": Check(
        "info", "A few responses are prose in a set of code, or code in a set of prose.", "Look at them."
    ),
    "refusals": Check(
        "info", "Responses read like refusals (a list of phrases in the first 200 characters).", "Look at them."
    ),
    "unpaired": Check(
        "warning",
        "Prompts lack a counterpart in the set that should be paired: the two arms differ in more than the response.",
        "Drop them, or add the counterpart.",
    ),
    "same in both sets": Check(
        "warning",
        "The same prompt has the same response in both sets: no contrast is trained there.",
        "Drop the rows from both sets.",
    ),
}
