"""Who may do what, as the specification of the service says: the expectation of the access matrix."""

from __future__ import annotations

EXPECTED = """
method                          auditor owner operator gate log-monitor
Capabilities/GetCapabilities    yyy     yyy   yyy      yyy  yyy
Checks/ListChecks               yyy     yyy   yyy      yyy  ---
Checks/GetCheck                 yyy     yyy   yyy      yyy  ---
Blobs/FindMissingBlobs          y--     y--   ---      ---  ---
Blobs/BatchUpdateBlobs          yyy     yyy   ---      ---  ---
Blobs/Write                     yyy     yyy   ---      ---  ---
Blobs/QueryWriteStatus          y--     y--   ---      ---  ---
Blobs/Read                      y--     y--   ---      y--  ---
Models/CreateModel              y--     y--   ---      ---  ---
Models/GetModel                 y--     y--   ---      ---  ---
Models/ListModels               y--     y--   ---      ---  ---
Models/DeleteModel              ---     y--   ---      ---  ---
Models/UndeleteModel            ---     y--   ---      ---  ---
Audits/SubmitAudit              y--     y--   ---      ---  ---
Audits/GetAudit                 y--     y--   yy-      y--  ---
Audits/ListAudits               y--     y--   yy-      y--  ---
Audits/WatchAudit               y--     y--   yy-      y--  ---
Audits/CancelAudit              y--     y--   yy-      ---  ---
Reports/GetReport               y--     y--   ---      y--  ---
Reports/ListReports             y--     y--   ---      y--  ---
Approvals/CreateApproval        ---     y--   ---      ---  ---
Approvals/GetApproval           y--     y--   ---      ---  ---
Approvals/ListApprovals         y--     y--   ---      ---  ---
Approvals/RevokeApproval        ---     y--   ---      ---  ---
Schedules/CreateSchedule        y--     y--   ---      ---  ---
Schedules/GetSchedule           y--     y--   ---      ---  ---
Schedules/ListSchedules         y--     y--   ---      ---  ---
Schedules/UpdateSchedule        y--     y--   ---      ---  ---
Schedules/RunSchedule           y--     y--   ---      ---  ---
Schedules/PauseSchedule         y--     y--   ---      ---  ---
Schedules/ResumeSchedule        y--     y--   ---      ---  ---
Schedules/ListFires             y--     y--   ---      ---  ---
Schedules/DeleteSchedule        y--     y--   ---      ---  ---
Webhooks/CreateWebhook          yyy     yyy   ---      ---  ---
Webhooks/GetWebhook             y--     y--   ---      ---  ---
Webhooks/ListWebhooks           y--     y--   ---      ---  ---
Webhooks/RotateSecret           y--     y--   ---      ---  ---
Webhooks/ListDeliveries         y--     y--   ---      ---  ---
Webhooks/Redeliver              y--     y--   ---      ---  ---
Webhooks/DeleteWebhook          y--     y--   ---      ---  ---
"""
"""Written from the table of the service's specification, section 14. Each cell: own, foreign and absent object.

y: the call reaches the object · -: it does not, and says the same of a foreign and of an absent one. "yyy" is a method
without an object, or one that makes a thing of the caller's own tenant whatever others have. What an auditor owns of
approvals are those that grant it runs; a gate's own audits carry its labels, and the foreign ones carry them too.
"""


def expected() -> dict[tuple[str, str], str]:
    """Return (method, role) -> three letters, of the table above."""
    head, *lines = EXPECTED.strip().splitlines()
    roles = head.split()[1:]
    cells: dict[tuple[str, str], str] = {}
    for line in lines:
        method, *letters = line.split()
        cells |= {(method, role): word for role, word in zip(roles, letters, strict=True)}
    return cells
