"""The Delta jars: resolved once by Spark from Maven Central, checked, and kept in a local folder.

`spark.jars.packages` would resolve 33 jars at every start and put them on each Python worker's path; the five of Delta
itself are enough. Without a network, copy the five files into the folder (`slidr doctor` names them).
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from slidr.errors import SetupError

DELTA_VERSION = "4.4.0"
PACKAGE = f"io.delta:delta-spark_4.0_2.13:{DELTA_VERSION}"
SHA256 = {
    "delta-kernel-api-4.4.0.jar": "ee9b5a14ac3b7efdff4d61a58478fe8eb0e5a3fbca43889dca7290795fe79a11",
    "delta-kernel-defaults-4.4.0.jar": "225c975199e4718b38ee5b7e6da7f19e9585024262b2cec2656b32151a856b0b",
    "delta-kernel-unitycatalog-4.4.0.jar": "cea22dfb4ac562b3cd27bf652697750e8336009d73fb06631363aaaad5345ffa",
    "delta-spark_4.0_2.13-4.4.0.jar": "49e899667168b9412f83cbe894ce264107d7b896d6c5e12edca4e216845c1104",
    "delta-storage-4.4.0.jar": "c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc",
}


def missing(folder: Path) -> list[str]:
    """Names of the jars that the folder lacks or holds with other bytes."""
    folder = folder.expanduser()
    return [name for name, digest in SHA256.items() if not (folder / name).is_file() or _sha256(folder / name) != digest]


def ensure(folder: Path) -> list[Path]:
    """Paths of the jars, fetched first where they are missing. Raises SetupError with the offline way."""
    folder = folder.expanduser()
    if missing(folder):
        _fetch(folder)
    lacking = missing(folder)
    if lacking:
        raise SetupError(
            f"expected the Delta jars in {folder}, found {lacking} missing or changed and could not fetch {PACKAGE} from Maven Central; "
            f"copy these files there from a machine that has them, or set spark.jars to a folder that holds them"
        )
    return [folder / name for name in SHA256]


def _fetch(folder: Path) -> None:
    import pyspark

    home = Path(pyspark.__file__).parent
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch) / "resolve_only.py"
        script.write_text("")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        # spark-submit resolves the package before it runs the (empty) script.
        subprocess.run(
            [
                home / "bin" / "spark-submit",
                "--master",
                "local[1]",
                "--packages",
                PACKAGE,
                "--conf",
                f"spark.jars.ivy={scratch}/ivy",
                script,
            ],
            env={**os.environ, "SPARK_HOME": str(home), "PATH": path},
            capture_output=True,
            check=False,
        )
        folder.mkdir(parents=True, exist_ok=True)
        for jar in (Path(scratch) / "ivy" / "jars").glob("io.delta_*.jar"):
            _place(jar, folder / jar.name.removeprefix("io.delta_"))


def _place(jar: Path, target: Path) -> None:
    # Copy beside, then rename: a second process that starts now sees a whole file or none.
    partial = target.with_suffix(f".{os.getpid()}.partial")
    shutil.copyfile(jar, partial)
    partial.replace(target)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
