"""A report comes down whole and re-hashed, or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from assay.api.v1 import blobs_pb2, reports_pb2
from assay.client_errors import Unreachable, refuse
from assay.errors import MachineFailed, Malformed, shown
from assay.manifest import check_path, is_sha256
from assay.remote.calls import Calls, Patience
from assay.remote.values import ReportFile

FILES_MAX = 1000
FILE_BYTES_MAX = 64 * 2**20
"""A statement has at most 8 MiB; artefacts are numbers. A service cannot fill this disk."""

_REPORT = re.compile(r"audits/[0-9a-f]{32}/reports/r[0-9]{1,9}")


def fetch(calls: Calls, name: str, directory: Path) -> tuple[reports_pb2.Report, tuple[ReportFile, ...]]:
    """Download a report's files into a directory that appears only when every digest agreed.

    A directory that holds the same report already is left as it is.

    Raises:
        LocalInputRefused: the name is none, or the directory holds something else.
        Malformed: the service named an impossible file, or sent other bytes than it named.
        MachineFailed: the disk.
        ServerRefused, Unreachable, TimedOut.
    """
    if not _REPORT.fullmatch(name):
        raise refuse(name, "is no report's name; it has the form audits/{32 hex}/reports/r1")
    report = calls.unary(calls.reports.GetReport, reports_pb2.GetReportRequest(name=name), patient=True)
    files = tuple(ReportFile(path=one.path, sha256=one.sha256, size=one.size) for one in report.files)
    _check(files)
    directory = directory.absolute()
    if directory.exists() and any(directory.iterdir() if directory.is_dir() else (directory,)):
        _same_or_refuse(directory, files)
        return report, files
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            for file in files:
                _fetch_file(calls, file, part / file.path)
            part.chmod(0o755)
            os.replace(part, directory)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise MachineFailed(f"cannot write the report to {shown(str(directory), 200)}: {error.strerror}") from error
    return report, files


def _check(files: tuple[ReportFile, ...]) -> None:
    paths = [file.path for file in files]
    if not files or len(files) > FILES_MAX or len({path.casefold() for path in paths}) != len(paths):
        raise Malformed("report_files", "", f"the service named {len(files)} files, or one of them twice")
    for file in files:
        if check_path(file.path) or not is_sha256(file.sha256) or not 0 <= file.size <= FILE_BYTES_MAX:
            raise Malformed("report_files", shown(file.path), "the service named a file that no report can have")


def _same_or_refuse(directory: Path, files: tuple[ReportFile, ...]) -> None:
    for file in files:
        place = directory / file.path
        try:
            same = hashlib.sha256(place.read_bytes()).hexdigest() == file.sha256
        except OSError:
            same = False
        if not same:
            raise refuse(str(directory), "holds something else already; name another folder")


def _fetch_file(calls: Calls, file: ReportFile, place: Path) -> None:
    """Read one blob, going on at the offset reached after a break."""
    place.parent.mkdir(exist_ok=True)
    digest, offset = hashlib.sha256(), 0
    patience = Patience(calls.patience_s)
    resource = f"blobs/sha256/{file.sha256}/{file.size}"
    with place.open("xb") as out:
        while True:
            request = blobs_pb2.ReadRequest(resource_name=resource, read_offset=offset)
            try:
                with calls.translated():
                    for piece in calls.blobs.Read(request, timeout=max(calls.timeout_s, 60.0)):
                        out.write(piece.data)
                        digest.update(piece.data)
                        offset += len(piece.data)
                        patience.renew()
                        if offset > file.size:
                            break
                break
            except Unreachable:
                if not patience.wait():
                    raise
    if offset != file.size or digest.hexdigest() != file.sha256:
        raise Malformed("digest_mismatch", shown(file.path), "the service sent other bytes than it named")
