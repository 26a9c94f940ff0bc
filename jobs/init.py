"""Makes the lake and the registry: spark-submit jobs/init.py --conf FILE"""

import sys
from concurrent.futures import ThreadPoolExecutor

from slidr import tables
from slidr.run import Job, Outcome


def init(job: Job) -> Outcome:
    """Makes the tables of the lake and the model registry where they are missing."""
    from slidr.registry import Registry  # MLflow takes seconds to import: only commands that need it do

    lake = job.lake
    declared = [*tables.ALL, tables.features_table(job.conf.spec)]
    with ThreadPoolExecutor(max_workers=4) as pool:  # a commit waits for the disk more than it works
        registry = pool.submit(Registry(job.conf.registry, lake).init)
        list(pool.map(lake.create, declared))
        registry.result()
    return Outcome({"tables": len(declared), "lake": job.conf.lake.root}, said=f"Lake ready: {job.conf.lake.root}")


if __name__ == "__main__":
    from slidr.cli import main

    main(["init", *sys.argv[1:]])
