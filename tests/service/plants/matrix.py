"""The failure matrix (specs: service, section 18): its rows, which tests show them, and what those tests counted."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

TOLD = "ASSAY_FIRE_TOLD"
"""Environment: a file to which each test adds what it counted in its journal, a line each (`make failure-matrix`)."""


@dataclass(frozen=True)
class Row:
    """One fault."""

    must_hold: str
    tests: tuple[str, ...]
    """`file::function` beneath `tests/`."""


ROWS: Mapping[str, Row] = {
    "redis SIGKILLed and restarted empty; redis gone for 5 min": Row(
        "every audit ends; republished in 30 s; submissions accepted meanwhile",
        (
            "e2e/test_fire_rooms.py::test_an_emptied_redis_is_told_again",
            "e2e/test_fire_rooms.py::test_without_redis_submissions_are_accepted_and_end_when_it_is_back",
            "e2e/test_broker_gone.py::test_without_redis_for_good_a_later_audit_completes_and_runs_once",
            "service/scheduler/test_scheduler.py::test_a_broker_that_lost_everything_is_told_again",
            "service/scheduler/test_scheduler.py::test_a_broker_that_is_away_ends_nothing",
            "service/queue/test_celery_queue.py::test_a_broker_that_is_away_is_told_within_seconds_and_found_again",
        ),
    ),
    "worker SIGKILLed before lease, after lease, mid-cell, before finalise, after commit": Row(
        "one final result; no old cell alive; finished shards not recomputed",
        (
            "e2e/test_fire_points.py::test_a_worker_that_dies_at_a_point_costs_no_audit",
            "e2e/test_fire_points.py::test_a_worker_killed_in_mid_cell_leaves_no_cell",
            "service/test_failure_matrix.py::test_entry_of_killed_worker_is_recovered",
            "service/test_killed_between.py::test_join_survives_killed_member",
            "service/worker/test_process.py::test_a_worker_killed_mid_cell_costs_one_attempt_and_the_audit_ends_once",
            "e2e/test_kills.py::test_worker_killed_in_mid_audit_ends_once_with_both_attempts",
            "e2e/test_contamination.py::test_a_worker_killed_while_it_scans_changes_no_part",
        ),
    ),
    "api SIGKILLed at 10, 50, 99 % of an upload; between commit and reply": Row(
        "resume from committed_size, no half blob readable; same request_id returns the one audit",
        (
            "e2e/test_fire_rooms.py::test_an_upload_outlives_apis_killed_at_three_places_and_no_half_of_it_is_seen",
            "e2e/test_fire_points.py::test_an_api_that_dies_round_the_commit_leaves_one_audit",
            "e2e/test_kills.py::test_server_killed_in_mid_upload_resumes_from_the_committed_offset",
            "service/api/test_process.py::test_upload_resumes_after_sigkill",
            "service/api/test_uploads.py::test_upload_resumes_on_a_new_server_and_cuts_what_was_not_synced",
            "service/api/test_submit.py::test_repeated_call_returns_the_current_state",
        ),
    ),
    "blob store full": Row(
        "RESOURCE_EXHAUSTED; database intact; reads served; work resumes when space returns",
        (
            "e2e/test_fire_rooms.py::test_a_full_blob_store_refuses_uploads_serves_reads_and_goes_on_with_space",
            "service/api/test_uploads_full.py::test_a_real_disk_that_fills_up_serves_reads_and_goes_on_with_space",
            "service/api/test_blobs.py::test_full_disk_refuses_uploads_before_the_bytes",
            "service/test_failure_matrix.py::test_a_full_blob_store_costs_an_attempt_and_no_audit",
        ),
    ),
    "write lock held 10 s": Row(
        "api UNAVAILABLE + RetryInfo after 3 s; no lease lost",
        (
            "e2e/test_fire_lock.py::test_a_lock_held_for_ten_seconds_is_told_after_three_and_loses_no_lease",
            "service/api/test_submit.py::test_busy_store_is_unavailable_with_a_delay",
            "service/scheduler/test_scheduler.py::test_a_busy_database_is_tried_again",
            "service/test_failure_matrix.py::test_a_lock_held_for_a_third_of_the_lease_loses_no_lease",
        ),
    ),
    "clock of worker or scheduler ±1 h, or stepping back at a fire": Row(
        "no early reap; no double fire; no signed time in the future",
        (
            "e2e/test_fire_rooms.py::test_a_clock_that_is_an_hour_off_reaps_nothing_and_signs_no_future",
            "e2e/test_fire_rooms.py::test_a_clock_that_steps_back_at_a_fire_fires_once",
            "service/test_failure_matrix.py::test_a_clock_that_jumps_an_hour_reaps_nothing_early",
            "service/signer/test_sealing.py::test_clocks_that_disagree_are_waited_for",
            "service/scheduler/test_fires.py::test_a_clock_that_steps_back_at_a_fire_fires_nothing_twice",
        ),
    ),
    "one id published x10; unknown id; body that is no string": Row(
        "one run; dropped and counted; worker alive",
        (
            "e2e/test_fire_points.py::test_twelve_knocks_are_one_run_and_no_death",
            "service/worker/test_attempt.py::test_duplicate_delivery_is_one_run",
            "service/worker/test_attempt.py::test_unknown_job_id_is_dropped",
            "service/queue/test_celery_queue.py::test_a_body_that_is_no_string_is_dropped_and_counted",
        ),
    ),
    "supervisor stopped 60 s, then continued": Row(
        "its writes hit 0 rows (fenced >= 1); its cell is killed first",
        (
            "e2e/test_fire_points.py::test_a_supervisor_that_stood_still_is_fenced_and_its_cell_dies_first",
            "service/test_failure_matrix.py::test_a_frozen_supervisor_is_fenced_and_kills_its_cell_first",
            "service/worker/test_attempt.py::test_a_fenced_worker_kills_its_cell_and_writes_nothing",
        ),
    ),
    "cell: crash, memory, endless loop, fork bomb, result of 2x cap": Row(
        "right exit class; neighbours finish; next lease within 5 s",
        (
            "e2e/test_fire_points.py::test_cells_that_misbehave_end_in_their_class_beside_neighbours_that_finish",
            "service/test_failure_matrix.py::test_memoryerror_frees_slot",
            "sandbox/test_cell.py::test_process_limit_holds_in_two_cells_at_once",
            "e2e/test_misbehaving_models.py::test_one_that_hangs_is_killed_at_its_wall_limit",
            "e2e/test_misbehaving_models.py::test_one_that_eats_memory_is_killed_at_its_limit",
        ),
    ),
    "one request_id x100 in parallel; same id with another body": Row(
        "1 audit, 100 equal names; REQUEST_ID_REUSED",
        (
            "e2e/test_fire_points.py::test_a_hundred_calls_of_one_id_are_one_audit",
            "service/api/test_submit.py::test_hundred_parallel_submissions_of_one_id_are_one_audit",
            "service/api/test_submit.py::test_request_id_with_other_content_is_refused",
        ),
    ),
    "signer down 2 min; killed between log and reply; key swapped mid-run": Row(
        "nothing leased unregistered; SIGNING, then COMPLETED once, one leaf",
        (
            "e2e/test_fire_rooms.py::test_without_a_signer_nothing_is_leased_and_what_is_done_waits",
            "e2e/test_fire_points.py::test_a_signer_that_dies_before_it_replies_has_logged_once",
            "e2e/test_fire_rooms.py::test_a_key_swapped_in_mid_run_signs_nothing_that_was_logged_for_another",
            "service/scheduler/test_scheduler.py::test_without_a_signer_nothing_is_leased_and_the_audit_says_why",
            "service/scheduler/test_scheduler.py::"
            "test_a_refused_seal_stays_signing_and_completes_when_the_cause_is_gone",
            "service/signer/test_killed.py::test_killed_while_sealing_at_every_step",
            "service/signer/test_killed.py::test_killed_while_registering_at_every_step",
            "service/signer/test_keys.py::test_a_lost_or_swapped_public_half_is_made_again",
        ),
    ),
    "cancel racing finalise, 1,000 interleavings": Row(
        "exactly one of CANCELLED and COMPLETED",
        (
            "service/store/test_jobs.py::test_cancel_racing_finalise_has_one_winner",
            "service/worker/test_attempt.py::test_cancel_that_comes_with_the_result_wins",
            "e2e/test_fire_points.py::test_cancels_that_race_results_have_one_winner_each",
        ),
    ),
    "webhook receiver: 500s for 24 h (scaled clock), hanging, redirecting to loopback": Row(
        "same id and body, back-off, dead letter; redirect never contacted",
        (
            "service/scheduler/test_deliveries.py::"
            "test_500s_for_a_day_and_more_end_in_a_dead_letter_with_one_id_and_one_body",
            "service/scheduler/test_deliveries.py::test_hanging_receiver_does_not_delay_another_webhook",
            "service/scheduler/test_outbound.py::test_redirect_to_loopback_is_never_contacted",
        ),
    ),
    "two schedulers; scheduler SIGKILLed every 2 L": Row(
        "no double fire, report or effect",
        (
            "e2e/test_fire_rooms.py::test_two_schedulers_one_of_them_killed_every_two_leases_do_everything_once",
            "e2e/test_fire_points.py::test_a_scheduler_that_dies_before_it_wrote_the_report_down_asks_again",
            "service/test_killed_between.py::test_dispatcher_crash_loses_nothing",
            "service/scheduler/test_scheduler.py::test_two_schedulers_do_one_schedulers_work",
            "service/scheduler/test_fires.py::test_two_schedulers_on_one_database_fire_each_minute_once",
            "service/scheduler/test_deliveries.py::test_two_schedulers_make_one_try",
        ),
    ),
    "everything at once": Row(
        "lost 0, finished twice 0, journal violations 0, every report verifies",
        (
            "e2e/test_soak.py::test_nothing_is_lost_and_nothing_is_done_twice_under_faults",
            "e2e/test_fire_rooms.py::test_the_whole_tree_killed_and_started_again_ends_what_it_accepted",
            "e2e/test_kills.py::test_the_whole_tree_killed_and_started_again_finishes_the_audit",
        ),
    ),
}
"""All of them, and the soak."""


def tell(store: str, counts: Counter[str]) -> None:
    """Add what a test counted in its journal to the file that is being filled, if one is."""
    file = os.environ.get(TOLD)
    if not file:
        return
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    with open(file, "a", encoding="utf-8") as out:
        out.write(json.dumps({"test": test, "store": store, "counts": {k: v for k, v in counts.items() if v}}) + "\n")
