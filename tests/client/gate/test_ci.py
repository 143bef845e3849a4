"""The CI templates: their shell steps run under bash against a fake `assay`, and nothing in them is unpinned."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from assay.testing import Forge

yaml = pytest.importorskip("yaml")

CI = Path(__file__).parents[3] / "deploy" / "ci"
ACTION, GITLAB = CI / "github" / "action.yml", CI / "gitlab" / "assay.yml"

FAKE = """#!/bin/bash
printf '%s\\n' "--- $1" >> "$FAKE_LOG"
printf '<%s>\\n' "${@:2}" >> "$FAKE_LOG"
if [ "$1" = render ]; then exit "${FAKE_RENDER:-0}"; fi
for option in "$@"; do
  case $option in --out=*=*) [ -n "$FAKE_SILENT" ] || echo "assay says $FAKE_CODES" > "${option#--out=*=}" ;; esac
done
n=$(cat "$FAKE_COUNT" 2> /dev/null || echo 0)
echo $((n + 1)) > "$FAKE_COUNT"
codes=($FAKE_CODES)
exit "${codes[$n]:-${codes[-1]}}"
"""


OPTIONAL = ("KEY", "LOG_VKEY", "RECEIPT", "LOG", "CATALOGUE", "WAIVERS", "BASELINE")
ENTRY = "import sys; from assay.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Ran:
    code: int
    calls: list[list[str]]
    output: str
    summary: str
    stdout: str


def action_step() -> dict[str, Any]:
    action = yaml.safe_load(ACTION.read_text())
    return next(step for step in action["runs"]["steps"] if step.get("id") == "gate")


def gitlab_job() -> dict[str, Any]:
    _, jobs = yaml.safe_load_all(GITLAB.read_text())
    job: dict[str, Any] = jobs["assay-gate"]
    return job


def run(place: Path, script: str, shell: list[str], codes: str, **change: str) -> Ran:
    binaries = place / "bin"
    binaries.mkdir(exist_ok=True)
    if codes:
        (binaries / "assay").write_text(FAKE)
        (binaries / "assay").chmod(0o755)
    for name in ("output", "summary"):
        (place / name).write_text("before\n")
    step = place / "step.sh"
    step.write_text(script)
    environment = {
        "PATH": f"{binaries}:/usr/bin:/bin",
        "GITHUB_OUTPUT": str(place / "output"),
        "GITHUB_STEP_SUMMARY": str(place / "summary"),
        "FAKE_LOG": str(place / "log"),
        "FAKE_COUNT": str(place / "count"),
        "FAKE_CODES": codes,
        "ASSAY_WAIT_S": "0",
        "ASSAY_VERSION": "installed",
        "ASSAY_OUT": "out",
        "ASSAY_REPORT": "report",
        "ASSAY_POLICY": "policy.yaml",
        **dict.fromkeys((f"ASSAY_{name}" for name in OPTIONAL), ""),
        "FAKE_SILENT": "",
        "ASSAY_TRUST_ROOT": "root.json",
        "ASSAY_MODEL": "model",
        "ASSAY_UNREGISTERED_POLICY": "false",
        "CI": "true",
        **change,
    }
    ended = subprocess.run(
        [*shell, str(step)], cwd=place, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    log = (place / "log").read_text() if (place / "log").exists() else ""
    calls = [re.findall("<(.*)>", part) for part in log.split("--- gate\n")[1:]]
    return Ran(
        ended.returncode,
        calls,
        (place / "output").read_text(),
        (place / "summary").read_text(),
        ended.stdout + ended.stderr,
    )


def act(place: Path, codes: str, **change: str) -> Ran:
    # As the platform runs `shell: bash`.
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]
    return run(place, action_step()["run"], shell, codes, **change)


def lab(place: Path, codes: str, shell: str = "bash", **change: str) -> Ran:
    return run(place, "\n".join(gitlab_job()["script"]), [shell, "-e"], codes, **change)


OUTCOMES = {"0": "pass", "1": "fail", "2": "inconclusive", "3": "misused"}


@pytest.mark.parametrize("code", OUTCOMES)
def test_result_not_posted_when_failing(tmp_path: Path, code: str) -> None:
    ran = act(tmp_path, code)
    assert ran.code == int(code), ran.stdout
    assert ran.output == f"before\ncode={code}\noutcome={OUTCOMES[code]}\n"
    assert ran.summary == f"before\nassay says {code}\n"
    assert len(ran.calls) == 1
    for kind in ("junit.xml", "sarif", "md", "json"):
        assert (tmp_path / "out" / f"assay.{kind}").exists()


@pytest.mark.parametrize(("codes", "code", "calls"), [("4 0", 0, 2), ("4 4 1", 1, 3), ("4", 4, 3), ("2 0", 2, 1)])
def test_only_4_is_tried_again(tmp_path: Path, codes: str, code: int, calls: int) -> None:
    ran = act(tmp_path, codes)
    assert (ran.code, len(ran.calls)) == (code, calls)
    assert f"code={code}\n" in ran.output


@pytest.mark.parametrize("codes", ["127", "137", "255", "130", ""])
def test_a_program_that_died_could_not_tell(tmp_path: Path, codes: str) -> None:
    ran = act(tmp_path, codes)
    assert ran.code == 2
    assert ran.output.endswith("code=2\noutcome=inconclusive\n")


def test_a_pass_without_a_summary_is_none(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "assay.md").write_text("a pass of yesterday")
    ran = act(tmp_path, "0", FAKE_SILENT="1")
    assert (ran.code, "yesterday" in ran.summary) == (2, False)
    assert act(tmp_path, "1", FAKE_SILENT="1").code == 1


def test_a_page_that_cannot_be_rendered_changes_no_code(tmp_path: Path) -> None:
    assert act(tmp_path, "0", FAKE_RENDER="1").code == 0


@pytest.mark.parametrize(("start", "limit", "code"), [("act", "0.8", 1), ("lab", "0.85", 2)])
def test_every_output_is_written_by_the_command_itself(
    tmp_path: Path, forge: Forge, start: str, limit: str, code: int
) -> None:
    """No stand-in: both templates run `assay` on a real report, and the page, too, is there when the answer is no."""
    rules = (
        "schema: assay-policy/v1\nname: release\nassertions:\n"
        f'  - {{id: low, check: forged_probe, metric: accuracy, op: "<=", value: {limit}}}\n'
    )
    (tmp_path / "policy.yaml").write_text(rules)
    report = forge.report(rules=rules)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "assay").write_text(
        f'#!/bin/bash\nexec {shlex.quote(sys.executable)} -c {shlex.quote(ENTRY)} "$@"\n'
    )
    (tmp_path / "bin" / "assay").chmod(0o755)
    pinned = {"TRUST_ROOT": forge.trust_root, "LOG": forge.log_dir, "CATALOGUE": forge.catalogue_file}
    if start == "lab":
        pinned |= {"KEY": forge.key_file}
        del pinned["TRUST_ROOT"]
    named = {"REPORT": report, "MODEL": forge.model_dir, "RECEIPT": report, **pinned}
    change = {**{f"ASSAY_{name}": str(value) for name, value in named.items()}, "HOME": str(tmp_path)}
    if start == "lab":
        change |= {"ASSAY_TRUST_ROOT": "", "ASSAY_LOG_VKEY": forge.logged.log.vkey.text}
    ran = {"act": act, "lab": lab}[start](tmp_path, "", PYTHONPATH=str(CI.parents[1] / "client"), **change)
    assert ran.code == code, ran.stdout
    out = tmp_path / ("out" if start == "act" else "assay-out")
    assert sorted(path.name for path in out.iterdir()) == [
        f"assay.{kind}" for kind in ("html", "json", "junit.xml", "md", "sarif")
    ]
    assert "no HTML was written" not in ran.stdout
    assert "NOT ESTABLISHED" not in (out / "assay.html").read_text()
    if start == "act":
        assert ran.summary.startswith("before\n## assay gate: ")
    told = json.loads((out / "assay.json").read_text())["verify"]
    assert {step["step"] for step in told["steps"] if step["status"] != "ok"} == set()
    (forge.model_dir / "config.json").write_text("{}")  # the report is of another model than the one to be released
    ran = {"act": act, "lab": lab}[start](tmp_path, "", PYTHONPATH=str(CI.parents[1] / "client"), **change)
    assert (ran.code, "V09" in ran.stdout) == (1, True)
    page = (out / "assay.html").read_text().split("</header>")[0]
    assert "NOT ESTABLISHED" in page, "the page must not say PASS of what the gate just found wrong"
    assert "V09 wrong" in page


@pytest.mark.parametrize("start", ["act", "lab"])
def test_whom_to_trust_and_what_is_released_are_never_left_open(tmp_path: Path, start: str) -> None:
    begin = {"act": act, "lab": lab}[start]
    for change, said in (({"ASSAY_TRUST_ROOT": ""}, "whom do you trust"), ({"ASSAY_MODEL": ""}, "unchecked")):
        ran = begin(tmp_path, "0", **change)
        assert (ran.code, ran.calls, said in ran.stdout) == (3, [], True)
        assert start == "lab" or ran.output == "before\ncode=3\noutcome=misused\n"
    (call,) = begin(tmp_path, "0").calls
    assert "--model=model" in call
    (tmp_path / "log").unlink()
    (call,) = begin(tmp_path, "0", ASSAY_MODEL="unchecked").calls
    assert not [one for one in call if one.startswith("--model")]


HELD = ("TRUST_ROOT", "KEY", "LOG_VKEY", "MODEL", "RECEIPT", "LOG", "CATALOGUE")
"""What a report is held against; the rest is asked of the gate alone."""


@pytest.mark.parametrize("start", ["act", "lab", "sh"])
def test_the_page_is_held_against_all_that_the_gate_is(tmp_path: Path, start: str) -> None:
    def begin(place: Path, codes: str, **change: str) -> Ran:
        return act(place, codes, **change) if start == "act" else lab(place, codes, shell, **change)

    shell = "sh" if start == "sh" else "bash"
    begin(tmp_path, "1", **{f"ASSAY_{name}": f"a {name}*" for name in HELD})
    gate, page = (tmp_path / "log").read_text().removeprefix("--- gate\n").split("--- render\n")
    for name in HELD:
        option = f"<--{name.lower().replace('_', '-')}=a {name}*>"
        assert option in gate.splitlines()
        assert option in page.splitlines()
    (tmp_path / "log").unlink()
    begin(tmp_path, "1", ASSAY_MODEL="unchecked", ASSAY_WAIVERS="w", ASSAY_BASELINE="b")
    page = (tmp_path / "log").read_text().split("--- render\n")[1]
    assert not [one for one in ("--model", "--waivers", "--baseline", "--policy", "--out") if f"<{one}" in page]


HOSTILE = ["$(touch owned)", "`touch owned`", "a b;touch owned", "'\"; touch owned #", "--help", "-rf", "*"]


@pytest.mark.parametrize("text", HOSTILE)
def test_inputs_are_data(tmp_path: Path, text: str) -> None:
    names = ("REPORT", "POLICY", "TRUST_ROOT", "MODEL", *OPTIONAL)
    change = {f"ASSAY_{name}": text for name in names}
    for number, start in enumerate((act, lab)):
        place = tmp_path / str(number)
        place.mkdir()
        ran = start(place, "0", **change)
        assert ran.code == 0, ran.stdout
        (call,) = ran.calls
        for name in names[1:]:
            assert f"--{name.lower().replace('_', '-')}={text}" in call
        gate = call[: call.index("--") + 2]
        assert gate[-1] == text
        assert not (place / "owned").exists()


def test_the_page_names_every_input_and_takes_it_through_env() -> None:
    action = yaml.safe_load(ACTION.read_text())
    taken = " ".join(str(step.get("env", "")) for step in action["runs"]["steps"])
    for name in action["inputs"]:
        assert f"inputs.{name} " in taken, name
    for step in action["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        if "uses" in step:
            assert re.fullmatch(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_./-]+@[0-9a-f]{40}", step["uses"])
        else:
            assert step["shell"] == "bash"
    assert "$[[" not in "\n".join(gitlab_job()["script"])
    assert all(one["expand"] is False for one in gitlab_job()["variables"].values())


@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize("code", ["0", "1", "2", "3", "4", "137"])
def test_the_gitlab_job_ends_with_the_gates_code(tmp_path: Path, code: str, shell: str) -> None:
    ran = lab(tmp_path, code, shell)
    assert ran.code == (2 if code == "137" else int(code)), ran.stdout
    assert (tmp_path / "assay-out" / "assay.junit.xml").exists()


def test_the_gitlab_job_keeps_its_outputs_and_retries_only_4() -> None:
    job = gitlab_job()
    assert job["artifacts"]["when"] == "always"
    assert job["retry"] == {"max": 2, "exit_codes": [4]}
    spec, _ = yaml.safe_load_all(GITLAB.read_text())
    assert "sha256" in spec["spec"]["inputs"]["image"]["regex"]


def test_no_exit_code_for_failure(tmp_path: Path) -> None:
    for number, start in enumerate((act, lab)):
        place = tmp_path / str(number)
        place.mkdir()
        assert start(place, "1").code == 1
