"""A case, and how its attempts are judged beside their controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sandbox.cell import Kind, Word
from sandbox.suite.attacks.words import THROUGH, Found

Control = Literal["bare", "caps", "less", "root", "twin"]
CELLS: tuple[Kind, ...] = ("ingest", "check")
"""The kinds that every host can run; `check_gpu` joins where GPUs are."""

REFUSALS = frozenset({"EPERM", "EACCES", "ENOSYS"})
"""A call that gets another error outside was allowed, and then refused for what it was given."""
ABSENT = frozenset({"ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EOPNOTSUPP"})
"""A kernel's word for what it does not have."""


@dataclass(frozen=True, kw_only=True)
class Killer:
    """A probe that gets a cell of its own, because the cell is to be killed for it."""

    probe: str
    limits: Mapping[str, int]
    outlasts_s: float = 0.0
    """The control must still run after so long; 0: it must end and say that it got through."""
    kinds: tuple[Kind, ...] = CELLS


@dataclass(frozen=True, kw_only=True)
class Case:
    """One attack."""

    id: str
    attack: str
    probes: tuple[str, ...] = ()
    """Run together with those of other cases in one cell."""
    killers: tuple[Killer, ...] = ()
    controls: tuple[Control, ...] = ("bare",)
    shown: str
    """What the control shows, in words."""
    expected: str
    """What must become of it inside, in words."""
    denied: frozenset[str]
    """The words that an attempt inside may end with."""
    ingest: frozenset[str] = frozenset()
    """Further words for a cell that has neither processes nor a process file system."""
    good: Word = "denied"
    effect: bool = True
    """The control must get through; False: it must be refused for what it was given only."""
    privileged: frozenset[str] = frozenset()
    """Attempts that nobody but a privileged user of the host can make: without one they are not applicable."""
    absent: frozenset[str] = ABSENT
    """Words of a control that say that this host has no such thing."""
    landlock: frozenset[str] = frozenset()
    """Attempts that Landlock alone stops; without it they succeed and lead nowhere."""
    kinds: tuple[Kind, ...] = CELLS
    in_prove: bool = True

    def allowed(self, kind: Kind) -> frozenset[str]:
        """Return the words that an attempt in a cell of this kind may end with."""
        return self.denied | self.ingest if kind == "ingest" else self.denied


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case under one launcher, with everything that a reader of the matrix wants to see."""

    id: str
    kind: str
    word: Word
    attack: str
    control: str
    expected: str
    observed: str


def judge(
    case: Case,
    kind: Kind,
    inside: Found,
    controls: Sequence[Found],
    effects: Sequence[str],
    *,
    capable: bool = True,
) -> Row:
    """Judge every attempt of a case.

    Args:
        case: the case.
        kind: of the cell.
        inside: attempts and words in the cell.
        controls: the same from each control that ran.
        effects: what the host itself saw of a success, whatever the probe says.
        capable: whether this host gives the launcher a namespace to be privileged in, for controls that need one.
    """
    through = [*effects, *(name for name, word in inside.items() if not _fits(word, case.allowed(kind)))]
    void, lacking = list[str](), dict[str, str]()
    for name in inside:
        answers = [one[name] for one in controls if name in one]
        if any(_reached(case, word) for word in answers):
            continue
        if reason := _lacking(case, name, answers, capable):
            lacking[name] = reason
        else:
            void.append(f"{name} {'/'.join(answers) or 'no answer'}")
    tried = {name: word for name, word in inside.items() if name not in lacking}
    shown = f"{case.shown} ({len(tried) - len(void)} of {len(tried)} attempts)"
    word, observed = case.good, _seen(tried, lacking)
    if through or not inside:
        word, observed = "open", ", ".join(f"{name} {inside.get(name, '')}".strip() for name in through) or "no answer"
    elif void:
        word, observed = "void", f"the control got {', '.join(void)}"
    elif not tried:
        word = "not_applicable"
    return Row(
        id=case.id, kind=kind, word=word, attack=case.attack, control=shown, expected=case.expected, observed=observed
    )


def _fits(word: str, allowed: frozenset[str]) -> bool:
    return set(word.split("/")) <= allowed


def _reached(case: Case, word: str) -> bool:
    return THROUGH in word if case.effect else not _fits(word, REFUSALS)


def _lacking(case: Case, name: str, answers: Sequence[str], capable: bool) -> str | None:
    """Return why nobody on this host can make the attempt; None when somebody should have been able to."""
    for word in answers:
        if _fits(word, case.absent):
            return word
    if "caps" in case.controls and answers and not capable:
        return "no namespace for a privileged control"
    return "no privileged user" if name in case.privileged and answers else None


def _seen(tried: Found, lacking: Mapping[str, str]) -> str:
    words = "/".join(sorted({part for word in tried.values() for part in word.split("/")}))
    left = f"not applicable, because: {', '.join(f'{name} {reason}' for name, reason in sorted(lacking.items()))}"
    if not tried:
        return left
    return f"{words} in {len(tried)} of {len(tried)} attempts" + (f"; {left}" if lacking else "")
