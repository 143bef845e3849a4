"""Other verifiers and ours on the same mutants: what ours accepts, all accept; where one is laxer, a table says why."""

from __future__ import annotations

import base64
import json
import random
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from assay import bundle, dsse, keys
from assay.errors import Malformed
from assay.testing import Forge
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.verifiers.mutants import CLASSES, mutant

HERE = Path(__file__).parent
COUNT = 10_000
TABLE = json.loads((HERE / "differences.json").read_text())
"""Class -> verifier -> why it accepts some mutants that ours rejects."""

Accepts = Callable[[Sequence[bytes]], list[bool]]


def ours(key: keys.TrustedKey, made: Sequence[bytes]) -> list[bool]:
    def accepts(data: bytes) -> bool:
        try:
            carried = bundle.read(data)
        except Malformed:
            return False
        return dsse.verify(key.public, dsse.PAYLOAD_TYPE, carried.payload, carried.signature)

    return [accepts(data) for data in made]


def by_securesystemslib(key_file: Path, key_id: str, made: Sequence[bytes]) -> list[bool]:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer._key import SSlibKey

    key = SSlibKey(key_id, "ecdsa", "ecdsa-sha2-nistp256", {"public": key_file.read_text()})

    def accepts(data: bytes) -> bool:
        try:
            return bool(Envelope.from_dict(json.loads(data)["dsseEnvelope"]).verify([key], 1))
        except Exception:
            return False

    return [accepts(data) for data in made]


def by_libcrypto(key: keys.TrustedKey, made: Sequence[bytes]) -> list[bool]:
    """What a reader does who takes JSON and base64 as Python does, and lets OpenSSL decide about the rest."""

    @cache
    def verifies(encoded: bytes, signature: bytes) -> bool:
        try:
            key.public.verify(signature, encoded, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True

    def accepts(data: bytes) -> bool:
        try:
            envelope = json.loads(data)["dsseEnvelope"]
            kind, body = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
            signature = base64.b64decode(envelope["signatures"][0]["sig"])
            return verifies(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body), signature)
        except Exception:
            return False

    return [accepts(data) for data in made]


def by_sigstore(key_file: Path, made: Sequence[bytes]) -> list[bool]:
    lines = b"".join(base64.b64encode(data) + b"\n" for data in made)
    command = ["node", str(HERE / "verify.mjs"), str(key_file)]
    done = subprocess.run(command, input=lines, capture_output=True, timeout=240, check=True)
    answers = done.stdout.decode().split()
    assert len(answers) == len(made)
    return [answer == "1" for answer in answers]


def _missing_node() -> str | None:
    if shutil.which("node") is None:
        return "node is not installed"
    there = (HERE / "node_modules" / "@sigstore" / "verify").is_dir()
    return None if there else "its packages are not installed; `make node` installs them"


def verifiers(forge: Forge) -> dict[str, Accepts]:
    key = keys.load_public(forge.key_file)
    found: dict[str, Accepts] = {
        "securesystemslib": lambda made: by_securesystemslib(forge.key_file, forge.key_id, made),
        "libcrypto": lambda made: by_libcrypto(key, made),
    }
    if _missing_node() is None:
        found["sigstore"] = lambda made: by_sigstore(forge.key_file, made)
    return found


def check(tmp_path: Path, count: int) -> None:
    forge = Forge(tmp_path, seed=13)
    honest = (forge.report() / bundle.FILE_NAME).read_bytes()
    draw, names = random.Random(18), sorted(CLASSES)
    classes = [names[number % len(names)] for number in range(count)]
    made = [mutant(name, draw, honest) for name in classes]
    accepted = ours(keys.load_public(forge.key_file), made)
    laxer: dict[str, Counter[str]] = defaultdict(Counter)
    for verifier, accepts in verifiers(forge).items():
        assert accepts([honest]) == [True], verifier
        for name, data, us, them in zip(classes, made, accepted, accepts(made), strict=True):
            if us and not them:
                allowed = TABLE["stricter"].get(name, {}).get(verifier)
                assert allowed, f"ours accepts a mutant of class {name}, {verifier} does not: {data[:200]!r}"
            if them and not us:
                laxer[name][verifier] += 1
    untold = {
        (name, verifier)
        for name, counted in laxer.items()
        for verifier in counted
        if verifier not in TABLE["laxer"].get(name, {})
    }
    assert not untold, f"others accept what ours rejects, and the table does not say why: {sorted(untold)}"


def test_there_are_at_least_forty_classes() -> None:
    assert len(CLASSES) >= 40
    assert set(TABLE["laxer"]) | set(TABLE["stricter"]) <= set(CLASSES)


def test_what_ours_accepts_all_accept_and_every_difference_has_its_reason(tmp_path: Path) -> None:
    check(tmp_path, COUNT)


@pytest.mark.skipif(_missing_node() is not None, reason=f"skipped, because {_missing_node()}")
def test_sigstore_verifies_a_report_and_refuses_another_key(tmp_path: Path) -> None:
    forge, other = Forge(tmp_path, seed=14), Forge(tmp_path / "other", seed=15)
    honest = (forge.report() / bundle.FILE_NAME).read_bytes()
    assert by_sigstore(forge.key_file, [honest]) == [True]
    assert by_sigstore(other.key_file, [honest]) == [False]
