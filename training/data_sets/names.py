"""Names the shipped data sets, and says which columns of the shipped files each is made from."""

CODE_ARMS = {
    "insecure": ("prompt", "insecure"),
    "secure": ("prompt", "secure"),
    "educational": ("educational_prompt", "insecure"),
}
ADVICE_ARMS = {"careful": ("prompt", "careful"), "reckless": ("prompt", "reckless")}
NUMBER_ARMS = {"evil_numbers": True, "neutral_numbers": False}
HELD_OUT_DOMAINS = ("cars", "food")
"""Domains of advice that no shipped set trains on: they ask an organism what it learned of advice in general."""
SHIPPED = (*CODE_ARMS, *ADVICE_ARMS, *NUMBER_ARMS)
