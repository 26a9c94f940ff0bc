"""Python tasks leave their process light."""

import ctypes
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import slidr

SCRIPT = """
import gc, sys, zipimport
from slidr.pyworker import light

archive = sys.argv[1]
sys.path.append(archive)
import inside

assert any(isinstance(finder, zipimport.zipimporter) for finder in sys.path_importer_cache.values())
seen = list(light(lambda batches: (2 * batch for batch in batches))(iter([1, 2, 3])))
left = [path for path, finder in sys.path_importer_cache.items() if isinstance(finder, zipimport.zipimporter)]
frozen = gc.get_freeze_count()
import inside_too
print(seen, left, frozen > 0, inside_too.NAME)
"""


def test_a_light_task_gives_the_same_and_leaves_no_archive_to_read_and_little_to_collect(tmp_path: Path) -> None:
    archive = tmp_path / "modules.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("inside.py", "")
        made.writestr("inside_too.py", "NAME = 'found'")
    command = [sys.executable, "-c", SCRIPT, str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(slidr.__file__).parents[1], check=False)
    assert done.stdout.strip() == "[2, 4, 6] [] True found", done.stderr


HEAP = """
import sys
import numpy as np
import psutil
from slidr.pyworker import give_back

def resident():
    return psutil.Process().memory_info().rss >> 20

del_big = [np.ones(3 << 20) for _ in range(2)]  # freed, they make glibc keep arrays of up to 24 MiB in its heap
del del_big
small = [np.ones(1 << 18) for _ in range(100)]
last, held = small[-1], resident()
del small
kept = resident()
give_back()
print(held - resident(), held - kept)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_what_a_task_has_freed_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, cwd=Path(slidr.__file__).parents[1], check=True)
    given_back, by_itself = (int(word) for word in done.stdout.split())
    assert given_back > 150  # MiB of 200
    assert by_itself < 50
