"""Airflow runs the compactor, in place of the one in `watershed up` (give that a long compactor.interval) or beside it: they take turns.

Needs Airflow 2.4 or newer, and on the worker the program `watershed`, and either the data directory of the running `watershed up`
(Airflow's variable `watershed_data_dir`) readable for the worker's user, or what the README says of services elsewhere. Each task may
be run again at any time: what a run that was killed left behind, the next one takes care of.
"""
from datetime import datetime, timedelta

from airflow import DAG

try:  # Airflow 3, and 2 with this provider
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:
    from airflow.operators.bash import BashOperator

ENVIRONMENT = {"WATERSHED_DATA_DIR": "{{ var.value.get('watershed_data_dir', '/var/lib/watershed') }}"}

with DAG(
    dag_id="watershed_lake",
    description="Ships waiting rows, merges the lake's small files, compares both stores",
    schedule="15 3 * * *",
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5), "execution_timeout": timedelta(hours=6)},
    tags=["watershed"],
) as dag:

    def task(name, arguments):
        return BashOperator(task_id=name, bash_command=f"exec watershed {arguments}", env=ENVIRONMENT, append_env=True)

    # A signal (a timeout, somebody clears the task) ends each of them between two commits.
    archive = task("archive", "archive --now")
    compact = task("compact", "compact --memory 2GiB")
    # Exit code 1, and so a failed task: the stores differ.
    verify = task("verify", "verify")

    archive >> compact >> verify
