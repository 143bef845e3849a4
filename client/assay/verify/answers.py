"""V10 to V12: nothing owed is missing, artefacts are what they are called, and the numbers say what is claimed."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from assay import bands, catalogue, promise, strict_json
from assay.catalogue import CheckEntry
from assay.errors import CouldNotTell, Malformed, Wrong, shown
from assay.verify.case import Case
from assay.verify.directory import ARTEFACT_MAX, ARTEFACTS

_SHARD = re.compile(r"shard:(0|[1-9][0-9]*)")

NAME_MAX = 128
"""Characters of a name; a longer item is refused by the schema (V12) and not looked at before."""

_PROMISES = (
    "access",
    "params",
    "data_roles",
    "metrics",
    "controls",
    "words",
    "reasons",
    "base_model",
    "artefacts",
    "shard_role",
)
"""Fields of a catalogue entry that a report is held to. The code's digest is compared apart: it changes with every
repaired comment, while these change what an answer means."""


def check_completeness(case: Case) -> str:
    """V10: one answer a question, attempts without a gap, every control and every instance owed."""
    asked, answers = case.request["checks"], case.predicate["answers"]
    if len(asked) != len(answers):
        raise Wrong(f"{len(asked)} checks were requested, {len(answers)} are answered")
    _check_attempts(case.predicate)
    unknown: list[str] = []
    for index, answer in enumerate(answers):
        at = f"/predicate/answers/{index}"
        _check_coverage(answer, at)
        _check_references(answer, at)
        entry = _find_entry(case, answer["catalogue_sha256"])
        if entry is None:
            unknown.append(f"{shown(answer['check'])} {shown(answer['version'])}")
        else:
            _check_against(case, answer, entry, at)
    if unknown:
        raise CouldNotTell(f"no catalogue entry of {', '.join(unknown)}, neither in {ARTEFACTS}/ nor in this client")
    _check_access(case)
    return (
        f"{len(answers)} answers, {len(case.predicate['attempts'])} attempts, every control and instance owed is there"
    )


def _check_attempts(predicate: Mapping[str, Any]) -> None:
    by_job: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for attempt in predicate["attempts"]:
        by_job[attempt["job"]].append(attempt)
    if not by_job:
        raise Wrong("the report lists no attempt")
    _check_jobs([attempt["job"] for attempt in predicate["attempts"]])
    for job, attempts in by_job.items():
        numbers = [attempt["n"] for attempt in attempts]
        if numbers != list(range(1, len(numbers) + 1)):
            raise Wrong(f"attempts of job {shown(job)} are numbered {shown(numbers)}, expected 1 to {len(numbers)}")
        # A job ends with its first result, so exactly the last of its attempts has one.
        with_result = [attempt["n"] for attempt in attempts if attempt["result_sha256"] is not None]
        if not with_result and _SHARD.fullmatch(job):
            continue  # a shard may end without a part; then the answer names it
        if with_result != numbers[-1:]:
            raise Wrong(
                f"attempts {shown(with_result)} of job {shown(job)} have a result, expected {numbers[-1]} alone"
            )


def _check_jobs(told: Sequence[str]) -> None:
    """One job is the whole audit; or it made a plan, and then come all shards of it, and what combines them."""
    jobs = list(dict.fromkeys(told))
    if len(jobs) == 1:
        return
    shards = jobs[1:-1]
    if (jobs[0], jobs[-1]) != ("whole", "combine") or len(shards) < 2:
        raise Wrong(f"jobs {shown(jobs)} are not a plan, its shards and what combines them")
    if set(shards) != {f"shard:{number}" for number in range(len(shards))}:
        raise Wrong(f"{len(shards)} jobs stand between plan and combination: not shard:0 to shard:{len(shards) - 1}")
    ranks = [{"whole": 0, "combine": 2}.get(job, 1) for job in told]
    if ranks != sorted(ranks):
        raise Wrong("a shard was read before the plan was made, or after its parts were joined")


def _check_access(case: Case) -> None:
    """How deep the audit looked follows from the entries: a report that claims more would meet a policy's `access`."""
    derived = promise.access(case.entries[answer["catalogue_sha256"]] for answer in case.predicate["answers"])
    told = case.predicate["access"]["derived"]
    if told != derived:
        raise Wrong(f"/predicate/access/derived is {shown(told)}, the checks' catalogue entries need {shown(derived)}")


def _check_coverage(answer: Mapping[str, Any], at: str) -> None:
    measured = answer.get("measured")
    if not measured:
        return
    skipped = _skipped(answer)
    for label, owed in measured["coverage"].items():
        seen = {metric["labels"][label] for metric in measured["metrics"] if label in metric["labels"]}
        for value in owed:
            # An instance is named "layer:3", or by its value alone where that is a tensor's name.
            if value not in seen and f"{label}:{value}" not in skipped and value not in skipped:
                raise Wrong(
                    f"{at}: {shown(label)} {shown(value)} is owed, but neither measured nor skipped with a reason"
                )
        if stray := sorted(seen - set(owed)):
            raise Wrong(f"{at}: {shown(label)} {shown(stray[0])} is measured, but coverage does not list it")
        if item := promise.stray_item(promise.skipped_items(answer), label, owed):
            raise Wrong(f"{at}: {shown(item)} is skipped, but coverage does not list that {shown(label)}")


def _skipped(answer: Mapping[str, Any]) -> frozenset[str]:
    """Return what is named as skipped, each with its own beginnings: "layer:3:pair-7" names "layer:3" too."""
    measured = answer.get("measured") or {"skipped": []}
    items = [item["item"][:NAME_MAX] for item in (*answer["skipped"], *measured["skipped"])]
    beginnings = {item[:end] for item in items for end, letter in enumerate(item) if letter == ":"}
    return frozenset(items) | beginnings


def _check_references(answer: Mapping[str, Any], at: str) -> None:
    metrics = (answer.get("measured") or {}).get("metrics", ())
    present = {(metric["name"], frozenset(metric["labels"].items())) for metric in metrics}
    for finding in answer["findings"]:
        for ref in finding["rests_on"]:
            if (ref["name"], frozenset(ref["labels"].items())) not in present:
                raise Wrong(f"{at}: finding {shown(finding['code'])} rests on {shown(ref['name'])}, which is not there")


def _find_entry(case: Case, digest: str) -> CheckEntry | None:
    """Return the entry that an answer names: the report's artefact if it is what it is called, else this client's."""
    if digest in case.entries:
        return case.entries[digest]
    try:
        data = case.files.read(f"{ARTEFACTS}/{digest}", ARTEFACT_MAX)
    except (CouldNotTell, Malformed):
        data = b""
    if hashlib.sha256(data).hexdigest() == digest:
        try:
            entry = catalogue.parse_entry(strict_json.loads(data, ARTEFACT_MAX))
        except Malformed as error:
            raise Wrong(f"{ARTEFACTS}/{digest[:16]}… is no catalogue entry: {error}") from None
        case.entries[digest] = entry
        return entry
    for shipped in case.shipped.checks if case.shipped else ():
        if shipped.sha256 == digest:
            case.entries[digest] = shipped
            return shipped
    return None


def _check_against(case: Case, answer: Mapping[str, Any], entry: CheckEntry, at: str) -> None:
    if (entry.name, entry.version) != (answer["check"], answer["version"]):
        raise Wrong(f"{at}: its catalogue entry is that of {shown(entry.name)} {shown(entry.version)}")
    if entry.code_sha256 != answer["code_sha256"]:
        raise Wrong(f"{at}/code_sha256 is not the digest in its catalogue entry")
    promised = _check_shipped(case, entry, at)
    _check_handed_out(answer, entry, at)
    unread = promise.unread_shards((one["job"], one["result_sha256"]) for one in case.predicate["attempts"])
    try:
        promise.check_promise(answer, promised)
        promise.check_unread(answer, entry, unread)
    except Malformed as error:
        raise Wrong(f"{at}{error.at}: {error.message}") from None


def _check_shipped(case: Case, entry: CheckEntry, at: str) -> Mapping[str, Any]:
    """Hold the report's entry against the shipped one; return the entry that the answer is held to."""
    named = f"{shown(entry.name)} {shown(entry.version)}"
    here = case.shipped.checks if case.shipped else ()
    shipped = next((one for one in here if (one.name, one.version) == (entry.name, entry.version)), None)
    if shipped is None:
        case.open_questions.append(f"this client ships no catalogue entry of {named}: the report's own was used")
        case.unshipped.append(named)
        return entry.raw
    bare = bands.states(entry.raw) != bands.states(shipped.raw)
    for field in _PROMISES:
        if _promise(entry, field, bare=bare) != _promise(shipped, field, bare=bare):
            raise Wrong(f"{at}: the catalogue entry of {named} differs in {field} from the one this client ships")
    if entry.code_sha256 != shipped.code_sha256:
        case.open_questions.append(f"{named} was answered by other code than this client's release names")
    if not bare or bands.states(entry.raw):
        return entry.raw
    case.open_questions.append(
        f"the entry of {named} is from before bands were promised: this client's bands were held"
    )
    return bands.as_answered(shipped.raw)


def _promise(entry: CheckEntry, field: str, *, bare: bool) -> Any:
    """Return a field of an entry; an entry that leaves an optional one out says the same as one that denies it."""
    value = entry.raw.get(field, {"base_model": False, "artefacts": []}.get(field))
    return bands.bare(field, value) if bare else value


def _check_handed_out(answer: Mapping[str, Any], entry: CheckEntry, at: str) -> None:
    """Hold what a check handed out against what it may."""
    promised = {one["name"]: one for one in entry.artefacts}
    told = answer.get("artefacts") or []
    if len({one["name"] for one in told}) != len(told):
        raise Wrong(f"{at}: an artefact is named twice")
    if told and answer["outcome"] != "measured":
        raise Wrong(f"{at}: hands out {shown(told[0]['name'])}, and measured nothing")
    for one in told:
        owed = promised.get(one["name"])
        if owed is None or one["size"] > owed["max_bytes"] or one.get("media_type") != owed["media_type"]:
            raise Wrong(f"{at}: hands out {shown(one['name'])}, which its catalogue entry does not promise so")


def check_artefacts(case: Case) -> str:
    """V11: every artefact present is what its name says, and what an answer says of it; absent ones are listed."""
    present: dict[str, int] = {}
    for name in case.files.artefacts():
        try:
            data = case.files.read(f"{ARTEFACTS}/{name}", ARTEFACT_MAX)
        except Malformed as error:
            raise Wrong(str(error)) from None
        if hashlib.sha256(data).hexdigest() != name:
            raise Wrong(f"{ARTEFACTS}/{name[:16]}… does not have the digest in its name")
        present[name] = len(data)
    answers = case.predicate["answers"]
    owed = {answer["catalogue_sha256"]: "catalogue entry" for answer in answers}
    for answer in answers:
        for one in answer.get("artefacts") or []:
            if present.get(one["sha256"], one["size"]) != one["size"]:
                found = present[one["sha256"]]
                raise Wrong(f"{ARTEFACTS}/{one['sha256'][:16]}… has {found} bytes, the report says {one['size']}")
            owed[one["sha256"]] = f"{shown(one['name'])} of {shown(answer['check'])}"
    absent = sorted(owed.keys() - present.keys())
    case.open_questions.extend(f"artefact {name[:16]}… ({owed[name]}) is absent" for name in absent)
    return f"{len(present)} artefacts match their digests" + (f", {len(absent)} absent" if absent else "")
