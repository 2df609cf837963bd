"""Turns a point of a figure into the filter of the answers behind it, as the address of the page spells it."""

from urllib.parse import urlencode

from emis_interp.report.answer_log import columns_of
from emis_interp.report.contents import Contents


class AnswerLinks:
    """Filters of a run's answers (`arm=reckless&question=quick_buck&kind=bad`); None for an arm that wrote none."""

    def __init__(self, contents: Contents) -> None:
        models = {name for name, _ in columns_of(contents.answers).arms}
        self.arms = models | {contents.arm_of[model] for model in models if model in contents.arm_of}

    def to(self, arm: str, **where: str) -> str | None:
        """`arm`: an arm with all of its models, one model, or the name of an intervention's cell."""
        return urlencode({"arm": arm} | where) if arm in self.arms else None
