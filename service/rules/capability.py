"""What a job needs of its worker: a word, chosen at submission from the checks' entries and the model's size.

One queue per word. A worker serves its own, and those of lesser needs only if its configuration lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

CPU = "cpu"

GIB = 2**30

GPU_CLASSES: tuple[tuple[str, int], ...] = (("gpu-24g", 24 * GIB), ("gpu-80g", 80 * GIB))
"""Classes of GPU memory, the smallest first; the words are the queues' names (specs: service, section 9)."""

CAPABILITIES = (CPU, *(name for name, _ in GPU_CLASSES))
"""Every queue."""

ANY_GPU = "gpu"
"""What a catalogue entry says whose class follows from the model's size."""

WEIGHTS_FACTOR_PERCENT = 250
"""GPU memory that a check needs, in percent of the bytes of weights: the weights themselves, as much again for a
float32 copy of a 16-bit layer at a time and its activations, and half of it for what the allocator cannot give back. An
estimate, held on the safe side: a job in too large a class waits, one in too small a class fails."""

RUNTIME_BYTES = GIB
"""What a CUDA context, its libraries' workspaces and the data take before any weight is loaded."""


def needed_bytes(weights_bytes: int) -> int:
    """Return the GPU memory that a model of so many bytes of weights is estimated to need.

    Raises:
        ValueError: a size below zero.
    """
    if weights_bytes < 0:
        raise ValueError(f"weights of {weights_bytes} bytes")
    return -(-weights_bytes * WEIGHTS_FACTOR_PERCENT // 100) + RUNTIME_BYTES


def gpu_class(weights_bytes: int) -> str | None:
    """Return the smallest class that a model fits in; None where it fits in none."""
    needed = needed_bytes(weights_bytes)
    return next((name for name, size in GPU_CLASSES if needed <= size), None)


def choose(wanted: Iterable[str], weights_bytes: int) -> str | None:
    """Return the capability of a job.

    Args:
        wanted: what the catalogue's entries of its checks say: "cpu", "gpu", or a class of their own.
        weights_bytes: of all models that it loads.

    Returns:
        "cpu" if no check needs a GPU. Else the largest of the named classes and of the model's own; None where the
        model fits in no class.

    Raises:
        ValueError: an entry says another word.
    """
    words = set(wanted) - {CPU}
    if unknown := words - {ANY_GPU, *CAPABILITIES}:
        raise ValueError(f"no capability is called {sorted(unknown)}; there are {[ANY_GPU, *CAPABILITIES]}")
    if not words:
        return CPU
    fits = gpu_class(weights_bytes)
    return None if fits is None else max({fits, *(words - {ANY_GPU})}, key=CAPABILITIES.index)


def queue_of(capability: str, weights_bytes: int) -> str:
    """Return the queue of a job whose checks need this, now that its models' sizes are known.

    What fits in no class goes to the largest: there its cell ends by its memory limit, which is an answer that is
    signed, while a job that nobody serves would wait for ever.
    """
    return choose([capability], weights_bytes) or GPU_CLASSES[-1][0]


def wanted_of(words: Iterable[str]) -> str:
    """Return what all checks of an audit need, before its models' sizes are known: "cpu", "gpu", or a class."""
    known = [word for word in set(words) if word != CPU]
    return max(known, key=(ANY_GPU, *CAPABILITIES).index) if known else CPU


def read_served(words: Sequence[str]) -> tuple[str, ...]:
    """Return the queues that a worker serves: its own, then those it looks at while that one is empty, largest first.

    Raises:
        ValueError: none, one twice, an unknown one, or one that needs more than the first.
    """
    if not words or len(set(words)) != len(words):
        raise ValueError(f"capability: name one queue or more, each once, of {list(CAPABILITIES)}")
    for word in words:
        if word not in CAPABILITIES:
            raise ValueError(f"capability: {word!r} is none of {list(CAPABILITIES)}")
        if CAPABILITIES.index(word) > CAPABILITIES.index(words[0]):
            raise ValueError(f"capability: {word!r} needs more than {words[0]!r}, the worker's own; name it first")
    return tuple(sorted(words, key=CAPABILITIES.index, reverse=True))
