"""V06 to V08: what was registered before the run, and the bytes it is about."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import pairwise
from typing import Any

from assay import canonical, manifest, moments, request
from assay.errors import CouldNotTell, Malformed, Wrong, shown
from assay.tlog import proofs
from assay.tlog.leaves import SKEW, Leaf
from assay.tlog.registration import Files, Registration, derive_seed, verify_registration
from assay.verify.case import Case

_ORDER = ("registered_at", "started_at", "ended_at", "composed_at")


def check_registration(case: Case) -> str:
    """V06: the request's digest, the seed that follows from it, and the order of the moments."""
    data = case.files.read(request.FILE_NAME, request.BYTES_MAX)
    registered = case.predicate["registration"]
    digest = hashlib.sha256(data).hexdigest()
    if digest != registered["request_sha256"]:
        raise Wrong(
            f"{request.FILE_NAME} has digest {digest[:16]}…, registered was {registered['request_sha256'][:16]}…"
        )
    try:
        case.request = request.parse(data)
    except Malformed as error:
        raise Wrong(f"{request.FILE_NAME} is malformed: {error}") from None
    if case.request["seed_mode"] != registered["seed_mode"]:
        raise Wrong(f"seed_mode is {registered['seed_mode']}, the request has {case.request['seed_mode']}")
    _check_moments(case)
    assert case.trust is not None
    if not case.trust.logs:
        return _check_unlogged(case)
    if case.leaf is None:
        raise CouldNotTell("depends on V05")
    asked = _check_logged(case, data, case.leaf)
    received = ", the receipt is the same registration" if case.receipt else ""
    return (
        f"request {digest[:8]}… is entry {asked.index} of the log, before the report's {case.leaf.index}; seed and tag "
        f"follow from it{received}"
    )


def _check_unlogged(case: Case) -> str:
    """Without a log key the claimed leaf and root are believed, and the output says so."""
    if case.receipt is not None:
        raise CouldNotTell("a receipt cannot be checked without a log key: pass --log-vkey V, or --trust-root F")
    registered = case.predicate["registration"]
    owed = case.request.get("seed")
    if registered["seed_mode"] == "derived":
        owed = derive_seed(bytes.fromhex(registered["leaf_sha256"]), bytes.fromhex(registered["root_sha256"]))
    if registered["seed"] != owed:
        raise Wrong(f"the seed is {registered['seed']}, but the registration gives {owed}")
    return f"request {registered['request_sha256'][:8]}… and seed {owed} fit (order in the log not checked: no log key)"


def _check_logged(case: Case, data: bytes, leaf: Leaf) -> Leaf:
    assert case.trust is not None
    said = case.predicate["audit"]
    claimed = Registration.read(case.predicate["registration"])
    files = Files(
        request=data,
        request_proof=case.files.read(proofs.REQUEST_PROOF, proofs.PROOF_MAX),
        consistency=case.files.read(proofs.CONSISTENCY, proofs.PROOF_MAX),
    )
    asked = verify_registration(
        files,
        claimed,
        leaf,
        case.trust.logs,
        manifest_sha256=case.predicate["model"]["manifest_sha256"],
        started_at=said["started_at"],
        ended_at=said["ended_at"],
        now=case.now,
        asked_seed=case.request.get("seed"),
        receipt=case.receipt,
    )
    if asked.entry.at != said["registered_at"]:
        raise Wrong(f"registered_at is {said['registered_at']}, the request was logged at {asked.entry.at}")
    return asked


def _check_moments(case: Case) -> None:
    said = case.predicate["audit"]
    times = [moments.parse(said[name]) for name in _ORDER]
    for earlier, later in pairwise(_ORDER):
        if moments.parse(said[earlier]) > moments.parse(said[later]):
            raise Wrong(f"{earlier} {said[earlier]} is later than {later} {said[later]}")
    if times[-1] > case.now + SKEW:
        raise Wrong(f"composed_at {said['composed_at']} lies in the future; check this machine's clock")
    for attempt in case.predicate["attempts"]:
        started, ended = moments.parse(attempt["started_at"]), moments.parse(attempt["ended_at"])
        if not times[1] <= started <= ended <= times[2]:
            raise Wrong(f"attempt {attempt['n']} of {shown(attempt['job'])} lies outside started_at to ended_at")


def check_request(case: Case) -> str:
    """V07: the statement answers what was asked, no more and no less."""
    asked, told = case.request, case.predicate
    pairs: list[tuple[str, Any, Any]] = [
        ("audit", f"audits/{asked['audit']}", told["audit"]["name"]),
        ("nonce", asked["nonce"], told["audit"]["nonce"]),
        ("submitted_at", asked["submitted_at"], told["audit"]["submitted_at"]),
        ("model", asked["model"]["manifest_sha256"], told["model"]["manifest_sha256"]),
        ("policy", asked.get("policy_sha256"), (told.get("policy") or {}).get("sha256")),
        ("base model", request.base_sha256(asked), request.base_sha256(told)),
        ("data", [[d["role"], d["sha256"]] for d in asked["data"]], [[d["role"], d["sha256"]] for d in told["data"]]),
    ]
    # The number of answers is V10's business; here each answer is held against the question in its place.
    for index, (question, answer) in enumerate(zip(asked["checks"], told["answers"], strict=False)):
        pairs.append((f"checks/{index}/name", question["name"], answer["check"]))
        pairs.append((f"checks/{index}/version", question["version"], answer["version"]))
        pairs.append((f"checks/{index}/params", question["params"], answer["params"]))
    for what, wanted, found in pairs:
        if canonical.dumps(wanted) != canonical.dumps(found):
            raise Wrong(f"{what}: asked was {shown(wanted)}, the report has {shown(found)}")
    most = asked["limits"]["attempts_max"]
    for job, count in Counter(attempt["job"] for attempt in told["attempts"]).items():
        if count > most:
            raise Wrong(f"job {shown(job)} took {count} attempts, the request allows {most}")
    base = request.base_sha256(asked)
    held = f", held against base {base[:8]}…" if base else ""
    return f"the report answers the request: {len(asked['checks'])} checks{held}, at most {most} attempts a job"


def check_subjects(case: Case) -> str:
    """V08: the manifest is the first subject, its files are the others, and nothing else is."""
    data = case.files.read(manifest.FILE_NAME, manifest.BYTES_MAX)
    subjects = [(subject["name"], subject["digest"]["sha256"]) for subject in case.statement["subject"]]
    digest = hashlib.sha256(data).hexdigest()
    if not subjects or subjects[0] != (manifest.FILE_NAME, digest):
        raise Wrong(f"{manifest.FILE_NAME} has digest {digest[:16]}…, which is not the statement's first subject")
    if case.predicate["model"]["manifest_sha256"] != digest:
        raise Wrong(f"/predicate/model/manifest_sha256 is not the digest {digest[:16]}… of {manifest.FILE_NAME}")
    try:
        listed = manifest.parse(data)
    except Malformed as error:
        raise Wrong(f"{manifest.FILE_NAME} is malformed: {error}") from None
    owed = [(file.path, file.sha256) for file in listed.files]
    if sorted(owed) != sorted(subjects[1:]):
        stray = sorted(set(owed) ^ set(subjects[1:])) or subjects[1:]
        raise Wrong(f"manifest and subjects differ at {shown(stray[0][0])}")
    case.manifest = listed
    return f"model {digest[:8]}… of {len(owed)} files is the subject"
