"""What the shim does before a program begins and after it has ended, seen in real cells."""

from __future__ import annotations

import importlib.util
import json
import os
import py_compile
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import BubblewrapCell, CodeMount, Order, ProcessCell

from .conftest import MakeOrder


def planted(order: Order, folder: Path) -> Order:
    """Return the order with a package whose bytecode says something else than its source, by size and time alike."""
    (folder / "guest").mkdir(parents=True)
    source = folder / "guest" / "__init__.py"
    source.write_text("WHO = 'planted'\n")
    cache = Path(importlib.util.cache_from_source(str(source)))
    py_compile.compile(str(source), cfile=str(cache), doraise=True)
    kept = source.stat()
    source.write_text("WHO = 'written'\n")
    os.utime(source, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    return replace(order, code=(*order.code, CodeMount(name="guest", source=folder / "guest")))


def test_bytecode_beside_a_source_is_not_run(
    cell: BubblewrapCell, twin: ProcessCell, order: MakeOrder, tmp_path: Path
) -> None:
    """The digest of code covers sources; a `.pyc` of the same size and time would run in their place."""
    told = planted(order("import guest; os.write(3, guest.WHO.encode())"), tmp_path / "code")
    assert cell.run(told).result == b"written"
    assert twin.run(told).result == b"written"


def test_control_of_planted_bytecode(order: MakeOrder, tmp_path: Path) -> None:
    """An interpreter that looks for bytecode runs what was planted: else the test above would prove nothing."""
    planted(order("pass"), tmp_path / "code")
    script = f"import sys; sys.path.insert(0, {str(tmp_path / 'code')!r}); import guest; print(guest.WHO)"
    done = subprocess.run([sys.executable, "-I", "-B", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "planted\n"


def test_bytecode_without_a_source_is_not_found(cell: BubblewrapCell, order: MakeOrder, tmp_path: Path) -> None:
    folder = tmp_path / "guest"
    folder.mkdir()
    source = folder / "__init__.py"
    source.write_text("WHO = 'planted'\n")
    py_compile.compile(str(source), cfile=str(folder / "__init__.pyc"), doraise=True)
    source.unlink()
    told = order("import guest; os.write(3, str(guest.__file__).encode())")
    outcome = cell.run(replace(told, code=(*told.code, CodeMount(name="guest", source=folder))))
    assert outcome.result == b"None"  # a folder with nothing in it


@pytest.mark.parametrize(("folder", "loaded"), [("plugins", True), ("guest", False)])
def test_only_third_parties_bring_extension_modules(
    cell: BubblewrapCell, order: MakeOrder, tmp_path: Path, folder: str, loaded: bool
) -> None:
    """The digest of a release's check covers its Python alone: a library beside it must not be loaded instead."""
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "native.so").write_bytes(b"no library")
    told = order(
        f"""
        sys.path.append("/code/{folder}")
        try:
            import native
        except ModuleNotFoundError:
            os.write(3, b"not found")
        except ImportError:
            os.write(3, b"loaded")
        """
    )
    outcome = cell.run(replace(told, code=(*told.code, CodeMount(name=folder, source=tmp_path / folder))))
    assert outcome.result == (b"loaded" if loaded else b"not found")


@pytest.mark.parametrize(
    ("ending", "status"), [("", 0), ("sys.exit()", 0), ("sys.exit(3)", 3), ("sys.exit('words')", 1), ("1 / 0", 1)]
)
def test_program_ends_with_its_own_status(cell: BubblewrapCell, order: MakeOrder, ending: str, status: int) -> None:
    outcome = cell.run(order(f"print('said')\n{ending}"))
    assert (outcome.ended, outcome.status) == ("exited", status)
    assert "said" in outcome.log_tail
    assert ("words" in outcome.log_tail) == ("words" in ending)


def test_threads_and_exit_functions_are_waited_for(cell: BubblewrapCell, order: MakeOrder) -> None:
    """A process that just ends would cut off a thread that still writes its part of the result."""
    outcome = cell.run(
        order(
            """
            import atexit, threading, time
            atexit.register(lambda: os.write(3, b" function"))
            threading.Thread(target=lambda: (time.sleep(0.3), os.write(3, b"thread"))).start()
            """
        )
    )
    assert outcome.result == b"thread function"


def test_program_without_its_streams_ends_well(cell: BubblewrapCell, order: MakeOrder) -> None:
    outcome = cell.run(order("os.write(3, b'{}'); sys.stdout.close(); sys.stderr = None"))
    assert (outcome.ended, outcome.status, json.loads(outcome.result or b"0")) == ("exited", 0, {})
