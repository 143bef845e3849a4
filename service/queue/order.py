"""Which queue a Celery worker of several capabilities looks at first: the one that needs most, its own."""

from __future__ import annotations

from kombu.utils.scheduling import priority_cycle

from service.rules.capability import CAPABILITIES


class LargestFirst(priority_cycle):
    """Order of the keys of Redis's BRPOP, which takes from the first list that is not empty.

    Kombu keeps the queues in a set, so an order of theirs cannot be had from the order in which they were named.
    """

    def consume(self, n: int) -> list[str]:
        """Return the queues in their order."""
        known = {name: place for place, name in enumerate(CAPABILITIES)}
        return sorted(self.items[:n], key=lambda name: known.get(name, -1), reverse=True)
