"""The one place where a command becomes an exit code.

The defaults would lie: Python ends an exception with 1, which reads as "wrong", and typer ends a bad flag with 2, which
reads as "could not tell".
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from typer.exceptions import Abort, TyperException

from assay.cli import codes
from assay.cli.app import build
from assay.cli.screen import SCREEN, clean
from assay.errors import AssayError


def run(arguments: Sequence[str]) -> int:
    """Run a command line.

    Returns:
        The exit code; see `assay.cli.codes`.
    """
    SCREEN.lost = False
    try:
        ended = build(arguments)(args=list(arguments), prog_name="assay", standalone_mode=False)
        code = ended if isinstance(ended, int) else codes.YES
    except TyperException as error:
        SCREEN.note(f"assay: {clean(error.format_message(), 1000)}\nTry `assay --help`, or `assay COMMAND --help`.")
        code = codes.MISUSED
    except (KeyboardInterrupt, Abort):
        SCREEN.note("assay: interrupted")
        code = codes.INTERRUPTED
    except AssayError as error:
        code = _told(error, arguments)
        for line in str(error).splitlines():
            SCREEN.note(f"assay: {clean(line, 2000)}")
    except SystemExit as error:
        # Inside typer only a broken pipe ends this way, with 1.
        code = error.code if error.code in (0, None) else codes.COULD_NOT_TELL  # type: ignore[assignment]
        code = code or codes.YES
    except Exception as error:
        code = _told(error, arguments)
        SCREEN.note(f"assay: unexpected {type(error).__name__}: {clean(error, 300)} (assay --debug … shows where)")
    return codes.COULD_NOT_TELL if SCREEN.lost and code == codes.YES else code


def _told(error: Exception, arguments: Sequence[str]) -> int:
    """Tell machines and developers about an error, and return its code."""
    if "--debug" in arguments:
        from assay.gate import neutral

        for line in "".join(traceback.format_exception(error)).splitlines():
            SCREEN.note(neutral.behind_bar(line))  # an exception may hold text of others
    if "--json" in arguments:
        SCREEN.json(codes.error_json(error))
    return codes.of_error(error)
