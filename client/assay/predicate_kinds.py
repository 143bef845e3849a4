"""Kinds of the predicate's leaves: digests, moments, paths, names of logs (`assay.predicate`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from assay import moments
from assay.errors import Malformed
from assay.manifest import check_path, is_sha256
from assay.tlog.notes import is_origin


def _sha256(text: str) -> str:
    if not is_sha256(text):
        raise ValueError("a digest is 64 lower-case hexadecimal digits")
    return text


def _moment(text: str) -> str:
    try:
        moments.parse(text)
    except Malformed as error:
        raise ValueError(error.message) from None
    return text


def _origin(text: str) -> str:
    if not is_origin(text):
        raise ValueError("a log's name is 1 to 128 of A-Z a-z 0-9 . _ : / @ -")
    return text


def _path(text: str) -> str:
    if check_path(text):
        raise ValueError("a path is one or two segments of [A-Za-z0-9._-] without a leading dot")
    return text


Sha256 = Annotated[str, AfterValidator(_sha256)]
Moment = Annotated[str, AfterValidator(_moment)]
Origin = Annotated[str, AfterValidator(_origin)]
Path = Annotated[str, AfterValidator(_path)]
Plain = bool | int | str | None
"""A value of a free-form map: flags, counts, short texts."""
