"""What a replication sends: taken from the first report alone, and held against the caller's own files beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay import manifest, request
from assay.client_errors import LocalInputRefused, Problem, ServerRefused
from assay.errors import CouldNotTell, shown
from assay.verify.directory import ReportFiles

if TYPE_CHECKING:
    from assay.cli.progress import Teller
    from assay.client import AuditClient
    from assay.compare.sides import Side
    from assay.manifest import Manifest
    from assay.preflight import CheckedData, HashedModel
    from assay.receipt import Expected
    from assay.remote.values import Audit, DataInput


Named = tuple[str, str]
"""Role and digest of a data file: a role may be read from several."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A report that is to be repeated, and what the caller has of its inputs."""

    side: Side
    bundle: bytes
    documents: dict[str, bytes]
    """Policy and waivers that were registered with it, by what a submission calls them."""
    items: tuple[bytes, ...]
    """Its per-item results, which the signer holds against the new ones."""
    model: HashedModel | None
    base: HashedModel | None
    data: dict[Named, CheckedData]
    """The caller's own files; each has the digest that the report names."""

    @property
    def asked(self) -> Mapping[str, Any]:
        """The request of the first report."""
        return self.side.request

    @property
    def seed(self) -> int:
        """The seed of the first report."""
        return int(self.side.predicate["registration"]["seed"])


def prepare(report: Path, side: Side, model: Path | None, base: Path | None, data: Sequence[tuple[str, Path]]) -> Order:
    """Hold the caller's files against a verified report; nothing is sent.

    Args:
        report: its directory.
        side: what verification read of it.
        model: the caller's copy of the model; None where the service has it.
        base: the same of the second model.
        data: role and file, in any order.

    Raises:
        LocalInputRefused: every file that is another than the report names.
    """
    files, asked = ReportFiles(report), side.request
    problems: list[Problem] = []
    listed = manifest.parse(files.read(manifest.FILE_NAME, manifest.BYTES_MAX))
    hashed = _model("--model", model, asked["model"]["manifest_sha256"], listed, problems)
    second = _model("--base", base, request.base_sha256(asked), None, problems)
    read = _data(side, data, problems)
    if problems:
        raise LocalInputRefused(problems)
    return Order(
        side=side,
        bundle=files.bundle(),
        documents=_documents(files, asked),
        items=_items(files, side),
        model=hashed,
        base=second,
        data=read,
    )


def _model(
    option: str, folder: Path | None, digest: str | None, listed: Manifest | None, problems: list[Problem]
) -> HashedModel | None:
    from assay.preflight import hash_model

    if folder is None:
        return None
    if digest is None:
        problems.append(Problem(item=f"{option} {folder}", message="the report was held against no base model"))
        return None
    try:
        hashed = hash_model(folder)
    except LocalInputRefused as error:
        problems += error.problems
        return None
    if hashed.manifest.digest != digest:
        named = _differing(hashed.manifest, listed) if listed else ""
        text = f"is model {hashed.manifest.digest[:16]}…, the report is about {digest[:16]}…{named}"
        problems.append(Problem(item=f"{option} {folder}", message=text))
        return None
    return hashed


def _differing(mine: Manifest, theirs: Manifest) -> str:
    have, owed = ({file.path: file.sha256 for file in one.files} for one in (mine, theirs))
    first = next(path for path in sorted(have.keys() | owed.keys()) if have.get(path) != owed.get(path))
    how = "is not in the report" if first not in owed else "is absent" if first not in have else "is another"
    return f": {shown(first)} {how}"


def _data(side: Side, given: Sequence[tuple[str, Path]], problems: list[Problem]) -> dict[Named, CheckedData]:
    from assay.manifest import hash_file
    from assay.preflight import check_data

    owed: dict[str, dict[str, Mapping[str, Any]]] = {}
    for one in side.predicate["data"]:
        owed.setdefault(one["role"], {})[one["sha256"]] = one
    found: dict[Named, CheckedData] = {}
    for role, path in given:
        item = f"--data {role}={path}"
        if role not in owed:
            named = ", ".join(sorted(owed)) or "none"
            problems.append(Problem(item=item, message=f"the report read no data of this role; its roles: {named}"))
            continue
        try:
            checked = check_data(role, path, next(iter(owed[role].values())).get("media_type") or "")
        except LocalInputRefused as error:
            problems += error.problems
            continue
        real = checked.path.resolve()
        digest = hash_file(real.parent, real.name).sha256
        if digest not in owed[role]:
            read = ", ".join(f"{one[:16]}…" for one in list(owed[role])[:3])
            more = f" and {len(owed[role]) - 3} more" if len(owed[role]) > 3 else ""
            text = f"has digest {digest[:16]}…, the report read {read}{more}"
            problems.append(Problem(item=item, message=text))
        found[role, digest] = checked
    return found


def _documents(files: ReportFiles, asked: Mapping[str, Any]) -> dict[str, bytes]:
    from assay.policy import registered

    names = {"policy": registered.POLICY_FILE, "waivers": registered.WAIVERS_FILE}
    return {
        what: files.read(name, registered.BYTES_MAX)
        for what, name in names.items()
        if asked.get(f"{what}_sha256") is not None
    }


def _items(files: ReportFiles, side: Side) -> tuple[bytes, ...]:
    from assay.compare import signed

    found = [files.artefact(digest) for digest in signed.items_of(side.predicate)]
    return tuple(one for one in found if one is not None)


def send(client: AuditClient, order: Order, request_id: str, told: Teller) -> tuple[Audit, Expected]:
    """Send what the service lacks and submit; return the audit, and what its receipt must say.

    Raises:
        LocalInputRefused: the service lacks a model or a data file that the caller did not name.
        CouldNotTell: the service cannot repeat audits.
        ServerRefused, Unreachable, TimedOut.
    """
    for content in (order.bundle, *order.items, *order.documents.values()):
        client.upload_document(content)
    asked = order.asked
    inputs = _inputs(client, order)
    request_: dict[str, Any] = {
        "checks": [(one["name"], one["params"]) for one in asked["checks"]],
        "data": inputs,
        "base": request.base_sha256(asked),
        "limits": _limits(asked["limits"]),
        "seed": order.seed,
        "first": order.bundle,
        "request_id": request_id,
        **order.documents,
    }
    model = asked["model"]["manifest_sha256"]
    _require_models(client, order, model, request_)
    for hashed in (order.model, order.base):
        if hashed is not None:
            client.upload_model(hashed.chosen.directory, progress=told.upload, hashed=hashed)
    for (role, _), one in order.data.items():
        client.upload_data(role, one.path, media_type=one.media_type, progress=told.upload)
    accepted = client.submit(model, validate_only=True, **request_)
    expected = _expected(order, inputs, client.nonce(request_id))
    if (accepted.seed, accepted.first_sha256) != (expected.seed, expected.first_sha256):
        raise CouldNotTell("this service cannot repeat audits: it left the fixed seed out; nothing was submitted")
    audit = client.submit(model, **request_)
    return audit, expected.of(audit.name)


def _limits(told: Mapping[str, int]) -> Any:
    from assay.remote.values import Limits

    return Limits(**{name: told[name] for name in ("attempts_max", "output_bytes", "wall_s")})


def _inputs(client: AuditClient, order: Order) -> list[DataInput]:
    """Return the data files in their order: the caller's own, and those that the service has of the first audit.

    Raises:
        LocalInputRefused: every file that is neither here nor there.
    """
    from assay.remote.values import Digest

    owed: list[Named] = [(one["role"], one["sha256"]) for one in order.asked["data"]]
    known = _known(client, order) if any(one not in order.data for one in owed) else {}
    missing = [one for one in owed if one not in order.data and one not in known]
    found: list[DataInput] = []
    for name in owed:
        if name in order.data:
            checked = order.data[name]
            found.append(client.hash_data(name[0], checked.path, media_type=checked.media_type))
        elif name in known:
            found.append(known[name])
    there = [one for one in found if (one.role, one.sha256) not in order.data]
    absent = client.lacks([Digest(sha256=one.sha256, size=one.size) for one in there]) if there else ()
    missing += [(one.role, one.sha256) for one in there if one.sha256 in {gone.sha256 for gone in absent}]
    if missing:
        raise LocalInputRefused(
            [
                Problem(
                    item=f"data role {role}",
                    message=f"the service lacks sha256:{digest}; name your copy with --data {role}=FILE",
                )
                for role, digest in missing
            ]
        )
    return found


def _known(client: AuditClient, order: Order) -> dict[Named, DataInput]:
    """Return what the service says that the first audit read, where it was an audit of this caller there."""
    owed = {(one["role"], one["sha256"]) for one in order.asked["data"]}
    try:
        audit = client.get(order.side.predicate["audit"]["name"])
    except ServerRefused:
        return {}
    return {(one.role, one.sha256): one for one in audit.data if (one.role, one.sha256) in owed}


def _require_models(client: AuditClient, order: Order, model: str, request_: dict[str, Any]) -> None:
    """Ask before anything large is sent whether a model that the caller did not name is there.

    Raises:
        LocalInputRefused: it is not.
        ServerRefused: whatever else the service has against the request.
    """
    try:
        client.submit(model, validate_only=True, **request_)
    except ServerRefused as error:
        if error.reason == "MISSING_BLOBS":
            return  # what the caller named is sent next
        if error.reason != "UNKNOWN_MODEL":
            raise
        base = error.metadata.get("field") == "audit.base_model"
        if (order.base if base else order.model) is not None:
            return
        option, digest = ("--base", request_["base"]) if base else ("--model", model)
        text = f"the service does not know it; name your copy with {option} DIR"
        raise LocalInputRefused([Problem(item=f"models/{digest}", message=text)]) from None


def _expected(order: Order, inputs: Sequence[DataInput], nonce: bytes) -> Expected:
    from hashlib import sha256

    from assay.receipt import Expected

    asked = order.asked
    return Expected(
        audit="",
        model_sha256=asked["model"]["manifest_sha256"],
        base_sha256=request.base_sha256(asked),
        checks=[(one["name"], one["params"]) for one in asked["checks"]],
        data=[(one.role, one.sha256) for one in inputs],
        policy_sha256=asked.get("policy_sha256"),
        waivers_sha256=asked.get("waivers_sha256"),
        nonce=nonce,
        seed=order.seed,
        first_sha256=sha256(order.bundle).hexdigest(),
    )
