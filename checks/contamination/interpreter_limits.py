"""Limits of the interpreter, counted before anything is made.

Specification: contamination, section 6.7. Work is counted in steps: one per node that is evaluated, and more for an
operation that reads or makes many elements, so that 200 000 steps bound both time and memory without a clock.
"""

from __future__ import annotations

from typing import Any

STEPS_MAX = 200_000
"""Steps of one run (section 6.7)."""

DEPTH_MAX = 100
"""Calls within calls, and containers within containers (section 6.7)."""

BITS_MAX = 4096
"""Bits of an integer (section 6.7)."""

ELEMENTS_MAX = 100_000
"""Elements of a container, characters of a text (section 6.7)."""

READ_PER_STEP = 16
"""Elements that a built-in operation reads in the time of one step (about 1.5 µs against .05-.1 µs, measured)."""

MADE_PER_STEP = 4
"""Elements made per step where each may be a new object: 200 000 steps then make 800 000 entries of a dictionary,
about 90 MB of the 200 that section 14 allows."""

BYTES_PER_STEP = 512
"""Bytes of text made per step: 100 MB in 200 000 steps."""

SEARCHED_PER_STEP = 2000
"""Pairs of letters compared per step by a search for a text in a text (about 1 ns each, worst case, measured)."""

PRODUCT_PER_STEP = 2**20
"""Product of the bits of two integers that multiply in the time of a step (4096 x 4096 bits: about 12 µs, measured)."""

SAFE_KEY = 2**32
"""Integers below this spread in a hash table whatever their choice: 32 bits leave too few free for long chains of
equal probes. Larger ones, floats and tuples can be chosen so that all collide: their look-ups are charged by size."""

SCALARS = frozenset({int, float, bool, type(None)})
VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
FLAT = frozenset({list, tuple, set, frozenset, *VIEWS})
CONTAINERS = FLAT | {dict}


class Undecided(Exception):
    """A run that can tell nothing: outside the subset, or over a limit. The name is ours, never the program's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Raised(Exception):
    """An exception of the program itself, by the name of its built-in type."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Meter:
    """Steps that are left, and the checks before each allocation."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def charge(self, steps: int) -> None:
        """Use up steps."""
        self.left -= steps
        if self.left < 0:
            raise Undecided("limit:steps")

    def room(self, elements: int, per_step: int = READ_PER_STEP) -> None:
        """Check that a container of so many elements may be made, and charge for it."""
        if elements > ELEMENTS_MAX:
            raise Undecided("limit:elements")
        self.charge(elements // per_step)

    def letters(self, length: int, wide: bool) -> None:
        """Check that a text of so many characters may be made, and charge for it."""
        if length > ELEMENTS_MAX:
            raise Undecided("limit:elements")
        self.charge(length * (4 if wide else 1) // BYTES_PER_STEP)

    def bits(self, bits: int) -> None:
        """Check that an integer of so many bits may be made."""
        if bits > BITS_MAX:
            raise Undecided("limit:bits")

    def search(self, held: int, sought: int) -> None:
        """Charge for a search of a text of `sought` characters in one of `held`."""
        self.charge(held * max(sought, 1) // SEARCHED_PER_STEP)

    def weigh(self, value: Any, times: int = 1) -> None:
        """Charge for an operation that may read a whole value, to its leaves, so many times.

        Shared parts count as often as they are met, as comparison, hashing and printing meet them.
        """
        kind = type(value)
        if kind in SCALARS:
            return None
        if kind is str:
            return self.charge(len(value) * times // BYTES_PER_STEP)
        if kind not in CONTAINERS:
            return None
        weight, most = 0, (self.left + 1) * READ_PER_STEP
        stack = [(value, 1)]
        while stack:
            held, depth = stack.pop()
            weight += len(held) + 1
            if depth > DEPTH_MAX:
                raise Undecided("limit:depth")
            if weight * times > most:
                raise Undecided("limit:steps")
            for part in (held, held.values()) if type(held) is dict else (held,):
                for each in part:
                    kind = type(each)
                    if kind is int:
                        weight += each.bit_length() >> 8
                    elif kind is str:
                        weight += len(each) >> 5
                    elif kind in CONTAINERS:
                        stack.append((each, depth + 1))
        return self.charge(weight * times // READ_PER_STEP + 1)

    def key(self, key: Any, held: int) -> None:
        """Charge for a look-up in a hash table of `held` entries."""
        kind = type(key)
        if kind is str or kind is bool or key is None or (kind is int and -SAFE_KEY < key < SAFE_KEY):
            return
        self.weigh(key)
        self.charge(held // READ_PER_STEP)

    def keys(self, keys: Any, held: int) -> None:
        """Charge for putting all of `keys` into a hash table that holds `held` entries."""
        self.weigh(keys)
        self.room(held + len(keys), MADE_PER_STEP)
        for number, key in enumerate(keys):
            self.key(key, held + number)

    def number(self, value: Any) -> Any:
        """Return a result that is a number, checked; complex numbers are outside the subset."""
        if type(value) is int and value.bit_length() > BITS_MAX:
            raise Undecided("limit:bits")
        if type(value) is complex:
            raise Undecided("complex")
        return value
