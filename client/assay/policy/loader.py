"""The strict reader of policy and waiver files: YAML or JSON in, plain nodes with line numbers out.

Scalars stay text until a field says what it wants, so no reader can take `no` for false, `1:30` for 90 or `1.10` for
1.1. Duplicate keys, anchors, aliases, tags, merge keys, directives and second documents are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from assay.errors import Misused, shown

BYTES_MAX = 256 * 1024
"""Cap of a policy or waiver file (specification, section 11): about 1,500 assertions."""

DEPTH = 32
"""Most collections inside one another, as in strict JSON (section 3)."""


class Refused(Misused):
    """A policy or waiver file cannot be accepted as it is (exit 3).

    Args:
        file: its name, for the message.
        line: counted from 1.
        message: what was expected and found, for a person.
    """

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(f"{shown(file, 200)}, line {line}: {message}")
        self.file = file
        self.line = line


@dataclass(frozen=True)
class Scalar:
    """One scalar as it was written."""

    text: str
    plain: bool
    """False when it stood in quotes or was a block: then it is text, whatever it looks like."""
    line: int


@dataclass(frozen=True)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True)
class Table:
    """A mapping; its keys are text and unique."""

    fields: Mapping[str, Node]
    line: int
    lines: Mapping[str, int]
    """Line of each key."""


Node = Scalar | Sequence | Table


@dataclass(frozen=True)
class Document:
    """A file that was read: its name and its one value."""

    file: str
    root: Node

    def refuse(self, node: Node, message: str) -> NoReturn:
        """Refuse the file at a node."""
        raise Refused(self.file, node.line, message)


def read(data: bytes, file: str) -> Document:
    """Read a policy or waiver file; `.json` is read as JSON, everything else as YAML.

    Raises:
        Refused: too large, not UTF-8, malformed, or it uses what is not accepted; the message names the line.
    """
    if len(data) > BYTES_MAX:
        raise Refused(file, 1, f"the file has {len(data)} bytes, the limit is {BYTES_MAX}")
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise Refused(file, 1, "the file starts with a byte order mark; save it without one")
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise Refused(file, data[: error.start].count(b"\n") + 1, "not UTF-8") from None
    if "\x00" in text:
        raise Refused(file, text[: text.index("\x00")].count("\n") + 1, "the file holds NUL")
    if file.lower().endswith(".json"):
        from assay.policy.json_nodes import parse

        return Document(file, parse(text, file))
    return Document(file, _yaml(text, file))


def table(file: str, pairs: list[tuple[Scalar, Node]], line: int) -> Table:
    """Return a table of pairs.

    Raises:
        Refused: a key appears twice.
    """
    fields: dict[str, Node] = {}
    for key, value in pairs:
        if key.text in fields:
            raise Refused(file, key.line, f"the key {shown(key.text, 60)} appears twice")
        fields[key.text] = value
    return Table(fields, line, {key.text: key.line for key, _ in pairs})


def _yaml(text: str, file: str) -> Node:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise Refused(file, 1, "reading YAML needs PyYAML; install it, or write the file as .json") from None
    builder = _Builder(file, yaml, text)
    try:
        return builder.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Refused(file, mark.line + 1 if mark else 1, f"not YAML: {shown(error.problem or '', 160)}") from None
    except yaml.YAMLError as error:
        place = getattr(error, "position", 0)
        raise Refused(file, text[:place].count("\n") + 1, "not YAML: a character that YAML forbids") from None


class _Builder:
    """Builds nodes from PyYAML's events, which resolve nothing: no type, no alias, no merge."""

    def __init__(self, file: str, yaml: Any, text: str) -> None:
        self._file = file
        self._yaml = yaml
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=yaml.SafeLoader))

    def document(self) -> Node:
        """Return the value of the one document."""
        next(self._events)  # start of the stream
        start = next(self._events)
        if not isinstance(start, self._yaml.DocumentStartEvent):
            self._refuse(start, "the file is empty")
        if start.version or start.tags:
            self._refuse(start, "directives (%YAML, %TAG) are not accepted")
        root = self._node(next(self._events), 0)
        next(self._events)  # end of the document
        after = next(self._events)
        if not isinstance(after, self._yaml.StreamEndEvent):
            self._refuse(after, "a second document; a file holds one")
        return root

    def _refuse(self, event: Any, message: str) -> NoReturn:
        raise Refused(self._file, event.start_mark.line + 1, message)

    def _node(self, event: Any, level: int) -> Node:
        if isinstance(event, self._yaml.AliasEvent):
            self._refuse(event, "aliases (*name) are not accepted; write the value out")
        if event.anchor is not None:
            self._refuse(event, "anchors (&name) are not accepted")
        if event.tag is not None:
            self._refuse(event, "tags (!name) are not accepted")
        line = event.start_mark.line + 1
        if isinstance(event, self._yaml.ScalarEvent):
            return Scalar(event.value, event.style is None, line)
        if level == DEPTH:
            self._refuse(event, f"nested deeper than {DEPTH}")
        if isinstance(event, self._yaml.SequenceStartEvent):
            return Sequence(tuple(self._until(self._yaml.SequenceEndEvent, level + 1)), line)
        return self._mapping(line, level + 1)

    def _until(self, end: type[Any], level: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), end):
            yield self._node(event, level)

    def _mapping(self, line: int, level: int) -> Table:
        pairs: list[tuple[Scalar, Node]] = []
        while not isinstance(event := next(self._events), self._yaml.MappingEndEvent):
            key = self._node(event, level)
            if not isinstance(key, Scalar):
                self._refuse(event, "a key is a text, not a list or a mapping")
            if key.text == "<<":
                self._refuse(event, "merge keys (<<) are not accepted")
            pairs.append((key, self._node(next(self._events), level)))
        return table(self._file, pairs, line)
