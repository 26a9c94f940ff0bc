"""Faults that tests of other files cause: their rows of the table, by node id without parameters."""

from typing import NamedTuple


class Row(NamedTuple):
    """`ends`: survived or refused."""

    fault: str
    holds: str
    ends: str


ELSEWHERE: dict[str, Row] = {
    "tests/test_ingest.py::test_every_row_is_accounted_for_and_a_second_run_adds_nothing": Row(
        "each kind of unusable row beside good ones",
        "rows in = written + already there + rejects, each reject with its reason and text; a second run adds nothing",
        "survived",
    ),
    "tests/test_ingest.py::test_too_many_rejects_publish_nothing": Row(
        "more rejects than allowed", "nothing is published, exit 4, the reasons counted", "refused"
    ),
    "tests/test_ingest.py::test_what_the_lake_has_stays": Row(
        "an id that the lake has, with other facts or on another day",
        "what the lake has stays, the row is a conflict in `rejects`",
        "survived",
    ),
    "tests/test_ingest.py::test_errors_name_what_is_wrong": Row(
        "missing, empty, cut off or mislabelled input files; a column renamed or of a type that can't fit",
        "exit 3 that names file and column",
        "refused",
    ),
    "tests/test_ingest.py::test_the_hosts_zone_does_not_show": Row(
        "a host in another time zone ingests", "the same times and dates", "survived"
    ),
    "tests/test_features_job.py::test_a_killed_run_goes_on_where_it_was": Row(
        "features killed between two blocks of days", "the next run goes on with the blocks that it lacks", "survived"
    ),
    "tests/test_features_job.py::test_a_late_click_gets_its_row_and_changes_no_other": Row(
        "a click comes after the features of its day", "it gets its row, no other row changes", "survived"
    ),
    "tests/test_jobs.py::test_the_chain_from_training_to_a_published_replay": Row(
        "training killed between MLflow and the table of states", "the same command registers the same version to its end", "survived"
    ),
    "tests/test_jobs.py::test_bad_input_is_one_clear_error": Row(
        "windows, names, plans and sources that make no sense", "exit code and one clear sentence, no trace", "refused"
    ),
    "tests/test_lake.py::test_a_table_made_twice_at_once_is_made_once": Row(
        "four threads make one table at once", "it is made once", "survived"
    ),
    "tests/test_lake.py::test_an_insert_that_another_writer_overtakes_is_refused": Row(
        "another writer inserts the same rows meanwhile", "exit 5, no row twice", "refused"
    ),
    "tests/test_lake.py::test_a_null_where_none_is_allowed_fails_the_write": Row(
        "a NULL where the table allows none", "no commit", "refused"
    ),
    "tests/test_lake.py::test_a_table_of_another_shape_lists_every_difference": Row(
        "a table of another shape than declared", "exit 3, every difference listed", "refused"
    ),
    "tests/test_cluster.py::test_features_survive_failing_and_hanging_tasks": Row(
        "a task fails once, another hangs and is speculated", "the same rows", "survived"
    ),
    "tests/test_backtest_walk.py::test_a_backtest_that_is_killed_goes_on_where_it_was": Row(
        "a backtest killed after a training, clicks added meanwhile", "it goes on where it was, with the same figures", "survived"
    ),
    "tests/test_billing.py::test_a_consumer_that_is_killed_at_random_ends_with_the_right_ledger": Row(
        "a consumer of the feed of corrections killed at random", "its ledger ends right, nothing twice", "survived"
    ),
    "tests/test_billing.py::test_a_missing_publication_is_not_skipped": Row(
        "a publication missing from the feed", "the consumer stops there", "refused"
    ),
    "tests/test_replay_processes.py::test_two_at_once": Row(
        "two responders publish at once", "apart both do; of one window one does, the other is told (exit 5 or 6)", "refused"
    ),
    "tests/test_replay_processes.py::test_killed_at_every_commit": Row(
        "a replay killed after each of its commits", "the next one completes it: tables and commits as undisturbed", "survived"
    ),
    "tests/test_replay_processes.py::test_killed_at_random_moments": Row(
        "a replay killed at fifty moments, with its JVM or alone", "the same", "survived"
    ),
    "tests/test_replay_processes.py::test_a_run_that_is_stopped_is_resumed_by_the_command": Row(
        "SIGTERM or SIGKILL while a replay records a chunk", "`slidr replay resume` completes it at once, published once", "survived"
    ),
    "tests/test_replay_job.py::test_no_first_decisions_while_a_replay_is_half_published": Row(
        "scoring, or a live system's decisions, while a replay is half published", "exit 6 that names the replay to resume", "refused"
    ),
    "tests/test_replay_job.py::test_first_decisions_right_before_the_point_of_no_return_make_the_plan_stale": Row(
        "first decisions between a replay's last look and its point of no return", "exit 5, nothing published", "refused"
    ),
    "tests/test_replay_job.py::test_who_resumes_a_run_that_died_before_its_second_look_looks": Row(
        "a replay killed between its point of no return and its second look, first decisions meanwhile",
        "whoever resumes it looks again: exit 5, nothing published",
        "refused",
    ),
    "tests/test_replay_job.py::test_rows_that_are_lost_while_half_published_are_made_again": Row(
        "a plan's rows lost while it is half published", "resume makes them again: tables as undisturbed", "survived"
    ),
    "tests/test_replay_job.py::test_a_plan_that_was_changed_on_record_is_made_again": Row(
        "a plan changed on record", "apply refuses it, planning again makes it anew under its id", "refused"
    ),
    "tests/test_feed.py::test_of_two_that_publish_at_the_turn_of_the_day_one_conflicts": Row(
        "two publish at the turn of a day, the later day first", "one number each: the slower one conflicts", "refused"
    ),
    "tests/test_replay.py::test_stale_plans_are_refused_and_other_days_do_not_matter": Row(
        "clicks, decisions or replays come after a plan", "exit 5 where they are of its window, else nothing", "refused"
    ),
    "tests/test_lease.py::test_a_dead_process_of_this_machine_holds_nothing": Row(
        "the holder of a window's lease died", "the next one takes over; a living holder is respected", "survived"
    ),
    "tests/test_lease.py::test_whose_lease_was_taken_stops": Row("a lease taken by somebody else", "who lost it stops, exit 5", "refused"),
    "tests/test_registry.py::test_writers_at_once_number_the_events_without_gaps": Row(
        "processes change states of versions at once", "events are numbered without gaps", "survived"
    ),
    "tests/test_registry.py::test_of_two_promotions_at_once_one_wins_and_one_is_told": Row(
        "two promotions at once", "one wins, the other is told (exit 5)", "refused"
    ),
    "tests/test_registry.py::test_a_killed_writer_leaves_the_old_or_the_new_state": Row(
        "a promotion killed at any moment", "the old or the new champion decides", "survived"
    ),
    "tests/test_registry.py::test_two_processes_that_train_the_same_agree_on_one_version": Row(
        "two processes register the same training at once", "one version", "survived"
    ),
    "tests/test_registry.py::test_a_change_holds_while_mlflow_is_away": Row(
        "MLflow away during a rollback", "the rollback holds; MLflow follows with the next change", "survived"
    ),
    "tests/test_registry.py::test_tampering_in_the_store_is_refused": Row(
        "bytes, files or places of a bundle changed in the store", "exit 8, nothing of it is parsed", "refused"
    ),
    "tests/test_bundle.py::test_no_code_runs_whatever_lies_in_the_folder": Row(
        "pickles and other code in a bundle's folder", "no code runs", "refused"
    ),
    "tests/test_states.py::test_no_bundle_is_fetched_from_outside_the_root": Row(
        "a registry that names places outside the artifact root", "exit 8", "refused"
    ),
    "tests/test_training.py::test_a_whole_snapshot_is_used_again_a_damaged_or_other_one_is_written_anew": Row(
        "a damaged training snapshot", "it is written anew", "survived"
    ),
    "tests/test_training.py::test_unusable_rows_are_all_named_and_nothing_is_written": Row(
        "NaN, infinite or missing labels and weights in training rows", "exit 3 that names them all", "refused"
    ),
    "tests/test_training.py::test_a_loss_that_is_not_finite_stops_the_run": Row(
        "a loss that is not finite", "exit 4, no version", "refused"
    ),
    "tests/test_distributed.py::test_a_killed_worker_is_made_good": Row(
        "a training worker killed", "training goes on, the same weights", "survived"
    ),
    "tests/test_distributed.py::test_lacks_are_told_before_anything_starts": Row(
        "fewer slots or devices than workers", "exit 75 in seconds, with the number", "refused"
    ),
    "tests/test_calibration.py::test_thresholds_above_the_budget_are_never_published": Row(
        "a solver whose answer breaks the budget", "refused by a check of slidr's own", "refused"
    ),
    "tests/test_calibration.py::test_small_and_empty_slices_take_the_global_threshold_and_their_purchases_count": Row(
        "small and empty slices", "they take the global threshold", "survived"
    ),
    "tests/test_calibration.py::test_where_everyone_or_nobody_purchased": Row(
        "slices of one class", "a threshold all the same, no NaN", "survived"
    ),
    "tests/test_calibration.py::test_scores_that_are_no_scores_are_refused": Row("NaN scores in calibration", "exit 3", "refused"),
    "tests/test_guardrails.py::test_a_day_with_one_class_is_found": Row(
        "a training day of one class", "exit 4 that names the day", "refused"
    ),
    "tests/test_guardrails.py::test_no_clicks_at_all_stop": Row("training days without clicks", "exit 4", "refused"),
    "tests/test_guardrails.py::test_days_missing_from_the_look_back": Row(
        "days missing from the look-back", "exit 4 that names them", "refused"
    ),
    "tests/test_readers.py::test_every_reader_reads_the_same": Row(
        "four engines read a table behind a checkpoint, with filters", "the same rows", "survived"
    ),
}
