"""What a cell that measures does with files that another cell passed on: it reads them again and believes nothing.

The weights are those that were sent, the settings are the canonical ones that the ingest cell wrote, and both are read
by the same strict readers as there. Any difference refuses the model: the same code has read the same bytes twice, so
one of the two cells did not run what it was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from checks.documents import OrderedModel, canonical
from checks.errors import LoadRefused
from sandbox.ingest import CONFIG, SLOTS, TENSORS, table
from sandbox.reader.error import ReaderError
from sandbox.reader.feedforward import FILE as DECLARATION
from sandbox.reader.model import ModelReading, read_capped

CODE = "ingest_disagrees"


def check_same(model: OrderedModel, reading: ModelReading, inputs: Mapping[str, Path]) -> None:
    """Hold this cell's reading of a model against the ingest cell's.

    Args:
        model: as ordered; one without a table of tensors was read by nobody before, and nothing is compared.
        reading: by this cell.
        inputs: path of each input of the order.

    Raises:
        LoadRefused: ingest_disagrees, with the path of the file where it is one of the model's.
    """
    if model.tensors is None:
        return
    for one in reading.decisions:
        if one.decision != "accepted":  # a canonical file holds nothing to drop
            where = {} if one.path is None else {"path": one.path}
            raise LoadRefused(CODE, where | {"key": one.reason or one.decision})
    if not _holds(inputs[model.tensors.input], table(reading.tensors)):
        raise LoadRefused(CODE, {"key": TENSORS})
    for file in model.files:
        value = reading.config if file.path in (CONFIG, DECLARATION) else reading.documents.get(file.path)
        if value is not None and not _holds(inputs[file.input], canonical(value)):
            raise LoadRefused(CODE, {"path": file.path})


def _holds(path: Path, content: bytes) -> bool:
    """Tell whether a file holds exactly these bytes; what another cell wrote is compared, never parsed."""
    try:
        return read_capped(path, max(SLOTS.values())) == content
    except ReaderError:
        return False
