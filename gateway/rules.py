"""Which systems process a series: rules are data, and every verdict has its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .config import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFacts:
    """What rules ask about a series.

    Attributes
    ----------
    texts
        Descriptions of series and protocol, to search in; never logged.
    slice_thickness
        In mm, None where the header has none.
    ours
        Why it is a result of Hilum's own; empty for all others.
    """

    modality: str = ""
    body_part: str = ""
    texts: tuple[str, ...] = ()
    aet: str = ""
    instances: int = 0
    slice_thickness: float | None = None
    ours: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says about a series: it takes it, or `reason` tells why not."""

    rule: Rule
    reason: str = ""

    @property
    def takes(self) -> bool:
        """Whether its systems process the series."""
        return not self.reason


def judge(facts: SeriesFacts, rules: Sequence[Rule]) -> list[Verdict]:
    """The verdicts of all rules, in their order."""
    return [Verdict(rule, _refusal(facts, rule)) for rule in rules]


def _refusal(facts: SeriesFacts, rule: Rule) -> str:
    """Why a rule does not take a series: header texts are not repeated, numbers are."""
    if facts.ours:
        return facts.ours
    searched = " ".join(facts.texts).lower()
    for name, wanted, value in (
        ("modality", rule.modality, facts.modality),
        ("body_part", rule.body_part, facts.body_part),
        ("aet", rule.aet, facts.aet),
    ):
        if wanted and value.strip().lower() not in (one.lower() for one in wanted):
            return f"{name} is not {' or '.join(wanted)}"
    if rule.description and not any(one.lower() in searched for one in rule.description):
        return f"description holds none of {', '.join(rule.description)}"
    for one in rule.description_not:
        if one.lower() in searched:
            return f"description holds {one}"
    if facts.instances < rule.min_slices:
        return f"{facts.instances} instances, fewer than {rule.min_slices}"
    if facts.instances > rule.max_slices:
        return f"{facts.instances} instances, more than {rule.max_slices}"
    return _wrong_thickness(facts.slice_thickness, rule)


def _wrong_thickness(thickness: float | None, rule: Rule) -> str:
    least, most = rule.slice_thickness_min, rule.slice_thickness_max
    if not (least or most):
        return ""
    if thickness is None:
        return "no slice thickness in the header, and the rule asks for one"
    if most and thickness > most:
        return f"slices of {thickness:g} mm, thicker than {most:g} mm"
    return f"slices of {thickness:g} mm, thinner than {least:g} mm" if thickness < least else ""
