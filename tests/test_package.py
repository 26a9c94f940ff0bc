"""slidr works from the archive that spark-submit ships as it does from a folder: Python imports from it, on the driver too."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from slidr import config, package
from slidr.build import code_version

ROOT = Path(__file__).parent.parent
LOOK = """
import json
import slidr
from slidr import config, package
from slidr.build import code_version
print(json.dumps({
    "from": slidr.__file__,
    "code_version": code_version(),
    "modules": len(package.sources()),
    "settings": config.load(config.shipped("cluster.yaml")).config_hash,
    "sources": sorted(path.name for path in config.shipped("sources").glob("*.yaml")),
}))
"""


def archived(path: Path) -> Path:
    """The package laid out as in a wheel."""
    with zipfile.ZipFile(path, "w") as archive:
        for place, inside in (("slidr", "slidr"), ("conf", "slidr/conf"), ("jobs", "slidr/jobs")):
            for file in (ROOT / place).rglob("*"):
                if file.is_file() and "__pycache__" not in file.parts:
                    archive.write(file, f"{inside}/{file.relative_to(ROOT / place)}")
    return path


def test_an_archive_has_the_version_settings_and_sources_of_the_folder(tmp_path: Path) -> None:
    path = archived(tmp_path / "slidr.zip")
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run([sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "from": f"{path}/slidr/__init__.py",
        "code_version": code_version(),
        "modules": len(package.sources()),
        "settings": config.load(config.shipped("cluster.yaml")).config_hash,
        "sources": sorted(path.name for path in (ROOT / "conf" / "sources").glob("*.yaml")),
    }
    assert len(package.sources()) > 100
