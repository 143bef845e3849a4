"""The shape of every built-in row, and the one design that keeps words from telling truth.

**Twins.** Rows are made in twos. Both rows of a twin show the same contrast (the words by which the + text differs
from the - text are the same, in the same order, under the same template), yet the + text is true in one and false in
the other. Twins never leave their cluster. So no word, number or name tells the label: not over the whole set, and
not in what any split by cluster leaves in train or in test. Balance over the whole set alone would not do: an object
seen true more often in train is then seen false more often in test, and a probe of words scores well below .5.

**The + branch of a yes/no contrast is the same word throughout a template** (" yes", "larger"), so that the mean of
branch and template takes the word out and leaves the truth.

**Where states are read.** A statement is read at the full stop that ends it, not at the last token of the question
after it. There the two branches show the same token, the claim is complete, and the answer word is still some tokens
away: a state read at the last token would hold the answer that is about to be said, which is the output and not the
feature, and a shift there would count as use of the feature merely by moving the output. An answer is read at its own
last token, because no later text exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Head:
    """What a row says of its item, whatever its form."""

    item: str
    """Name of the item, unique in its set; there is one row an item. `id` comes with the place in a file."""
    cluster: str
    set: str
    template: str
    label: bool
    """Whether the + text is the true one."""
    features: Mapping[str, bool] = field(default_factory=dict)
    negated: bool = False

    def row(self, form: str) -> Row:
        """Return the fields that both forms share; optional ones that say nothing are left out."""
        return {
            "item": self.item,
            "cluster": self.cluster,
            "set": self.set,
            "template": self.template,
            "form": form,
            "label": int(self.label),
            "polarity": "negated" if self.negated else "affirmative",
            "features": {name: int(flag) for name, flag in self.features.items()},
        }


@dataclass(frozen=True)
class Tail:
    """What follows a statement, and the two words that may answer it."""

    question: str
    yes: str
    no: str


TRUE_OR_FALSE = Tail("True or false? The statement is", " true", " false")
IS_THAT_RIGHT = Tail("Is that right? Answer:", " yes", " no")


def answered(head: Head, prompt: str, pos: str, neg: str) -> Row:
    """Return a row of the form `answer`; answers begin with a blank, prompts end without one."""
    return {**head.row("answer"), "prompt": prompt, "answer_pos": f" {pos}", "answer_neg": f" {neg}"}


def verified(head: Head, claim: str, before: str = "") -> Row:
    """Return a row of the form `answer` that asks of one claim: + says yes, - says no.

    Args:
        head: the item; its label is the truth of the claim.
        claim: a clause without its full stop, fit to follow "that".
        before: text before the question.
    """
    return answered(head, f"{before}Question: Is it right to say that {claim}? Answer:", "yes", "no")


def stated(head: Head, claims: Iterable[str], tail: Tail, before: str = "") -> Row:
    """Return a row of the form `statement`, read at the full stop of the statement.

    Args:
        head: the item.
        claims: the statement of the + text and that of the - text, without their full stops.
        tail: question after the statement.
        before: text before the statement, the same for both.
    """
    pos, neg = (f"{before}{claim}." for claim in claims)
    return {
        **head.row("statement"),
        "pos": f"{pos} {tail.question}",
        "neg": f"{neg} {tail.question}",
        "yes": tail.yes,
        "no": tail.no,
        "read_at": [len(pos), len(neg)],
    }
