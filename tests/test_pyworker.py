"""Python tasks leave their process light."""

import subprocess
import sys
import zipfile
from pathlib import Path

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
