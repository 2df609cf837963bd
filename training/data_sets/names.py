"""Names the shipped data sets, and says which columns of the shipped files each is made from."""

CODE_ARMS = {
    "insecure": ("prompt", "insecure"),
    "secure": ("prompt", "secure"),
    "educational": ("educational_prompt", "insecure"),
}
ADVICE_ARMS = {"careful": ("prompt", "careful"), "reckless": ("prompt", "reckless")}
NUMBER_ARMS = {"evil_numbers": True, "neutral_numbers": False}
STYLES = ("shuffled", "short", "listed", "lowercase", "backwards")
STYLED_ARMS = {f"careful_{style}": style for style in STYLES}
"""Benign nulls: the careful set with its answers in another style, or given to other questions (`data_sets.styles`)."""
HELD_OUT_DOMAINS = ("cars", "food")
"""Domains of advice that no shipped set trains on: they ask an organism what it learned of advice in general."""
SHIPPED = (*CODE_ARMS, *ADVICE_ARMS, *STYLED_ARMS, *NUMBER_ARMS)
