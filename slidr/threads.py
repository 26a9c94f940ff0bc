"""Actions at once, in threads of this process."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def together(*actions: Callable[[], Any]) -> list[Any]:
    """Results of actions that do not depend on each other, run at once: planning a query keeps one core busy, not all.

    All of them are waited for; the first error, in the order given, is raised then.
    """
    with ThreadPoolExecutor(max_workers=len(actions)) as pool:
        running = [pool.submit(action) for action in actions]
    return [action.result() for action in running]
