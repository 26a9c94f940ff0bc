"""Makes the lake and the registry: spark-submit jobs/init.py --conf FILE"""

import sys

from slidr import tables
from slidr.run import Job, Outcome


def init(job: Job) -> Outcome:
    """Makes the tables of the lake and the model registry where they are missing."""
    from slidr.registry import Registry  # MLflow takes seconds to import: only commands that need it do

    for table in tables.ALL:
        job.lake.create(table)
    job.lake.create(tables.features_table(job.conf.spec))
    Registry(job.conf.registry, job.lake).init()
    return Outcome({"tables": len(tables.ALL) + 1, "lake": job.conf.lake.root}, said=f"Lake ready: {job.conf.lake.root}")


if __name__ == "__main__":
    from slidr.cli import main

    main(["init", *sys.argv[1:]])
