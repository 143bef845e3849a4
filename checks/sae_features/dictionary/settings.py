"""A peer's configuration as typed values, and a note of which keys a rule has read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from checks.check import Refusal
from sandbox.reader.error import SHOWN_MAX, shown

_REQUIRED: Any = object()
"""Default of a key that must be there."""

LISTED_MAX = 64
"""Keys that `dropped` lists; a configuration may hold a million."""


def named(kind: str, text: object) -> str:
    """Return an item of a refusal: `kind:text` in the name alphabet, at most 128 characters."""
    return f"{kind}:{shown(str(text))}"[:SHOWN_MAX]


def unknown(key: str, value: object) -> Refusal:
    """Return the refusal of a way of encoding that the normal form cannot hold."""
    return Refusal("unknown_architecture", (named(key, value),))


@dataclass(frozen=True)
class Settings:
    """One object of a configuration; what no rule reads is dropped and listed."""

    values: Mapping[str, Any]
    read: set[str] = field(default_factory=set)
    """Paths of keys that were read, shared with the parts."""
    prefix: str = ""

    def part(self, key: str) -> Settings:
        """Return the object under a key; an empty one where it is missing or null."""
        return Settings(self.take(key, dict, {}), self.read, f"{self.prefix}{key}.")

    def take(self, key: str, kinds: type | tuple[type, ...], default: Any = _REQUIRED) -> Any:
        """Return a value of these types; the default where it is missing or null.

        Raises:
            Refusal: `config_value`, naming the key: of another type, or missing where there is no default.
        """
        self.read.add(self.prefix + key)
        value = self.values.get(key)
        if value is None and default is not _REQUIRED:
            return default
        accepted = kinds if isinstance(kinds, tuple) else (kinds,)
        # `True` is an integer to Python and to no file format.
        if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
            raise self.wrong(key)
        return value

    def wrong(self, key: str) -> Refusal:
        """Return the refusal of a key's value."""
        return Refusal("config_value", (named("key", self.prefix + key),))

    def dropped(self) -> tuple[str, ...]:
        """Return the keys that no rule read, sorted, at most `LISTED_MAX`; of an object that was read, its own keys."""
        flat: set[str] = set()
        for key, value in self.values.items():
            opened = isinstance(value, dict) and any(path.startswith(f"{key}.") for path in self.read)
            flat |= {f"{key}.{inner}" for inner in value} if opened else {key}
        return tuple(shown(key) for key in sorted(flat - self.read)[:LISTED_MAX])
