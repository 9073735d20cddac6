"""One line of the report: what was measured, beside what, against which target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .measure import Spread, spread


@dataclass(frozen=True)
class Target:
    """What a row is to show."""

    bound: float
    at_least: bool = True
    of_ratio: bool = True  # of the ratio to the first peer, else of miniflow's own figure

    def met(self, figure: float) -> bool:
        """Whether `figure` is good enough."""
        return figure >= self.bound if self.at_least else figure <= self.bound

    def text(self, unit: str) -> str:
        """In words."""
        bound = number(self.bound) if self.of_ratio else f"{number(self.bound)} {unit}"
        return f"at {'least' if self.at_least else 'most'} {bound}"


@dataclass
class Row:
    """Miniflow (the first of the sides) and its peers, over the rounds."""

    name: str
    what: str
    unit: str
    sides: dict[str, Spread] = field(default_factory=dict)
    ratios: dict[str, Spread] = field(default_factory=dict)  # miniflow / the peer, by peer
    target: Target | None = None
    notes: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def figure(self) -> float | None:
        """What the target is about."""
        if self.skipped or self.target is None:
            return None
        chosen = self.ratios if self.target.of_ratio else self.sides
        return next(iter(chosen.values())).median

    @property
    def verdict(self) -> str:
        """``ok``, ``missed``, ``skipped``, or nothing if there is no target."""
        if self.skipped:
            return "skipped"
        if self.target is None or self.figure is None:
            return ""
        return "ok" if self.target.met(self.figure) else "missed"

    def lines(self) -> list[str]:
        """The row for people."""
        head = f"{self.name}: {self.what}"
        if self.skipped:
            return [head, f"    skipped: {self.skipped}"]
        lines = [head]
        for label, values in self.sides.items():
            times = ""
            if label in self.ratios:
                times = "   miniflow / it: " + _spread(self.ratios[label])
            lines.append(
                f"    {label:<34}{number(values.median):>9} {self.unit:<9}{_range(values):<18}{times}"
            )
        lines += [f"    {note}" for note in self.notes]
        if self.target is not None:
            of = "ratio" if self.target.of_ratio else "miniflow"
            lines.append(f"    target: {of} {self.target.text(self.unit)}: {self.verdict}")
        return lines

    def as_json(self) -> dict[str, Any]:
        """The row for machines."""
        target = None
        if self.target is not None:
            target = {
                "bound": self.target.bound,
                "at": "least" if self.target.at_least else "most",
                "of": "ratio" if self.target.of_ratio else "miniflow",
            }
        return {
            "name": self.name,
            "what": self.what,
            "unit": self.unit,
            "sides": {label: values._asdict() for label, values in self.sides.items()},
            "ratios": {label: values._asdict() for label, values in self.ratios.items()},
            "figure": self.figure,
            "target": target,
            "verdict": self.verdict,
            "notes": self.notes,
            "skipped": self.skipped,
        }


def compare(
    name: str,
    what: str,
    unit: str,
    found: Mapping[str, Sequence[float]],
    target: Target | None,
    notes: Sequence[str] = (),
) -> Row:
    """A row of what interleaved slices gave, miniflow's first."""
    ours, *peers = found
    return Row(
        name,
        what,
        unit,
        sides={label: spread(values) for label, values in found.items()},
        ratios={peer: spread(a / b for a, b in zip(found[ours], found[peer])) for peer in peers},
        target=target,
        notes=list(notes),
    )


def number(value: float) -> str:
    """With three digits that count, and no exponent."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.4f}"


def _range(values: Spread) -> str:
    return "" if values.low == values.high else f"{number(values.low)}..{number(values.high)}"


def _spread(values: Spread) -> str:
    return f"{number(values.median)}  ({_range(values) or 'once'})"
