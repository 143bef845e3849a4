"""The numbered steps, as a table, and the loop that runs them. The order is that of the specification."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

from assay.errors import AssayError, CouldNotTell, MachineFailed, Malformed, Wrong
from assay.verify import answers, commitment, envelope, log, model_files, recompute, verdict
from assay.verify.case import Case, NotAsked
from assay.verify.outcome import Status, Step, Verification


@dataclass(frozen=True)
class Rule:
    """One step: what it needs, and the function that returns its detail or raises."""

    id: str
    needs: tuple[str, ...]
    run: Callable[[Case], str]


STEPS = (
    Rule("V01", (), envelope.read_bundle),
    Rule("V02", (), envelope.find_trust),
    Rule("V03", ("V01", "V02"), envelope.check_signature),
    Rule("V04", ("V03",), envelope.read_statement),  # only verified bytes are parsed
    Rule("V05", ("V04",), log.find_log_proof),
    Rule("V06", ("V04",), commitment.check_registration),
    Rule("V07", ("V06",), commitment.check_request),
    Rule("V08", ("V04",), commitment.check_subjects),
    Rule("V09", ("V08",), model_files.check_model_files),
    Rule("V10", ("V06",), answers.check_completeness),
    Rule("V11", ("V04",), answers.check_artefacts),
    Rule("V12", ("V10",), recompute.recompute),  # validity needs the catalogue entries that V10 found
    Rule("V13", ("V07", "V10"), verdict.recompute_verdict),
    Rule("V14", ("V08",), verdict.check_companions),
    Rule("V15", ("V04",), log.check_log),
)


def run(case: Case) -> Verification:
    """Run every step; a step that depends on one that is not ok is unknown, never skipped in silence."""
    done: dict[str, Step] = {}
    for rule in STEPS:
        failed = next((step_id for step_id in rule.needs if done[step_id].status != "ok"), None)
        done[rule.id] = Step(rule.id, "unknown", f"depends on {failed}") if failed else attempt(rule, case)
    steps = tuple(done.values())
    statuses = {step.status for step in steps}
    verified = case.bundle if case.signed_by else None
    told = case.predicate if case.statement else None
    return Verification(
        outcome="wrong" if "wrong" in statuses else "unknown" if "unknown" in statuses else "verified",
        steps=steps,
        not_checked=(*(step.detail for step in steps if step.status == "not_asked"), *case.open_questions),
        statement_sha256=hashlib.sha256(verified.payload).hexdigest() if verified else None,
        model_sha256=told["model"]["manifest_sha256"] if told else None,
        audit=told["audit"]["name"] if told else None,
        signed_by=case.signed_by,
        trusted_by=_trusted_by(case) if case.signed_by else None,
        profile=told["signer"]["profile"] if told else None,
        verdict=case.decided[1].outcome if case.decided else None,
        waivers=case.decided[1].waivers if case.decided else (),
        estimate_only=case.decided[1].estimate_only if case.decided else (),
        replication=case.replication,
    )


def _trusted_by(case: Case) -> str:
    """Return why the key was trusted. A root says by itself nothing about when the key was good: V05 does."""
    trust = case.trust
    if trust is None or trust.version is None:
        return "pinned key, no rotation"
    return f"trust root {trust.version} of {trust.operator}"


def rules(ids: Collection[str]) -> tuple[Rule, ...]:
    """Return the steps of these ids, in their order."""
    return tuple(rule for rule in STEPS if rule.id in ids)


def attempt(rule: Rule, case: Case) -> Step:
    """Run one step, whose needs are met."""
    status: Status
    try:
        status, detail = "ok", rule.run(case)
    except NotAsked as reason:
        status, detail = "not_asked", str(reason)
    except (Wrong, Malformed) as reason:
        status, detail = "wrong", str(reason)
    except (CouldNotTell, MachineFailed) as reason:
        status, detail = "unknown", str(reason)
    except AssayError:
        raise
    except Exception as error:
        # A defect of this client must read as "could not tell", never as a pass or as an accusation.
        status, detail = "unknown", f"this client failed: {type(error).__name__}; please report it"
    return Step(rule.id, status, "".join(c if c.isprintable() else "?" for c in detail))
