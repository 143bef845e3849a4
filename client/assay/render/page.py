"""The report as one HTML file without scripts (specification, section 14).

Bytes are a function of statement, artefacts, what verification established, and this code: no clock, no locale, no
hash order, no machine name. Text of others is escaped where it enters, in `assay.render.markup`.
"""

from __future__ import annotations

from assay.render import answers, outcome, seek, setting, verdict
from assay.render.markup import Html, element, join
from assay.render.source import Source
from assay.render.style import POLICY, STYLE

RENDERER = "assay-render/2"
"""Version of the page's form; whoever compares bytes of two pages compares this first."""

NOT_CLAIMED = (
    "That the operator is honest: the log and the signing key are the operator's own. Order in time is shown only to "
    "whoever keeps a receipt or a checkpoint.",
    "That a subverted cell told the truth: only a replication catches that.",
    "That the model lacks what a check looked for. “Not detected” says what it says at the power that stands beside "
    "it, for these data and this code.",
    "That the numbers hold for another model. They belong to the manifest digest above; one changed byte or name "
    "makes another model.",
    "That a pass outlives the age which the policy allows.",
    "That this page is the report. The signed statement is; this page may have been altered after it was made.",
)
"""What may not be said (specification, section 1), in words for readers."""


def render(source: Source) -> bytes:
    """Return the page of a report."""
    predicate = source.predicate
    audit = predicate["audit"]["name"]
    told = seek.rows(predicate["answers"])
    drawn = answers.figures(told)
    checks = [
        answers.section(one, at, source.entries.get(one["catalogue_sha256"]), drawn.get(at, []))
        for at, one in enumerate(told)
    ]
    sections = (
        ("not-answered", "Not answered, refused, left out", outcome.unanswered(told)),
        ("verdict", "Verdict", verdict.verdict(source)),
        ("checks", "Checks", join(*checks)),
        ("attempts", "Attempts", setting.attempts(predicate)),
        ("waivers", "Waivers", verdict.waivers(source)),
        ("comparison", "Comparison", verdict.comparison(source)),
        ("access", "Access", setting.access(predicate)),
        ("data", "Data", setting.data(predicate)),
        ("environment", "Environment", setting.environment(predicate)),
        ("sandbox", "Sandbox and output bytes", setting.sandbox(predicate)),
        ("not-claimed", "What this report does not claim", _not_claimed()),
        ("how", "How to verify", _how(source)),
    )
    contents = [_link(name, title, told if name == "checks" else []) for name, title, _ in sections]
    head = element("header", element("h1", "Audit report"), outcome.banner(source))
    nav = element("nav", element("ul", *contents), aria_label="Contents")
    main = element("main", *(_section(*one) for one in sections))
    foot = element("footer", element("p", f"{RENDERER} · {audit}", class_="soft"))
    return _document(f"Audit report {audit}", join(head, nav, main, foot)).encode()


def _document(title: str, body: Html) -> str:
    meta = join(
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=Html(POLICY)),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
    )
    # The style sheet is our own constant: its digest is in the policy, so it must not be escaped.
    head = f"<head>{meta}<style>{STYLE}</style></head>"
    return f'<!DOCTYPE html>\n<html lang="en">{head}{element("body", body)}</html>\n'


def _link(name: str, title: str, told: list[answers.Answer]) -> Html:
    under = [
        element("li", element("a", f"{at + 1}. {answers.name_of(one)}", href=f"#check-{at + 1}"))
        for at, one in enumerate(told)
    ]
    return element("li", element("a", title, href=f"#{name}"), element("ul", *under) if under else "")


def _section(name: str, title: str, body: Html) -> Html:
    return element("section", element("h2", title, id=name), body, aria_labelledby=name)


def _not_claimed() -> Html:
    return element("ul", *(element("li", one) for one in NOT_CLAIMED))


COMMAND = "assay verify REPORT --trust-root root.1.dsse.json --log LOG --model MODEL"
"""What a reader runs; it works as it stands where report, log and model lie in folders of these names."""


def _how(source: Source) -> Html:
    steps = (
        join(
            "Take the report directory itself, not this page: ",
            element("code", "REPORT"),
            " below. SHA-256 of its ",
            element("code", "report.sigstore.json"),
            " is ",
            element("code", source.bundle_sha256),
            ".",
        ),
        join(
            "Get the operator's trust root, ",
            element("code", "root.1.dsse.json"),
            ", by a way of your own; one that came with the report proves nothing.",
        ),
        join(
            "Get a copy of the operator's log, ",
            element("code", "LOG"),
            ": the files checkpoint and tile/ as they are published. It shows withdrawals, and second reports of one "
            "request.",
        ),
        join("Have your own copy of the model in ", element("code", "MODEL"), "."),
        join("Run ", element("code", COMMAND), ". It opens no connection, and names each step and how it ended."),
        "Exit code 0: every step that was asked is in order. 1: something is wrong. 2: it could not tell.",
        join(
            "Without ",
            element("code", "--log"),
            " nobody looks for a withdrawal, and without ",
            element("code", "--model"),
            " the model's files are not compared. With ",
            element("code", "--key OPERATOR.pem"),
            " in place of the trust root nobody looks whether the report is in the log and when it was signed, unless ",
            element("code", "--log-vkey"),
            " names the log's key as well. ",
            element("code", "--receipt FOLDER"),
            " holds the report against the request that you kept when you submitted it.",
        ),
        "Without this client: the page protos/report/v1.md of its source says how to check the signature with openssl.",
    )
    told = element("ol", *(element("li", one) for one in steps))
    if not source.not_checked:
        return told
    head = element("p", "When this page was made, the following was not looked at:")
    return join(told, head, element("ul", *(element("li", one) for one in source.not_checked)))
