"""A standalone cluster of processes on this machine, drivers for it, and executors that are killed."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pyspark

from slidr import jars
from slidr.config import Config

ROOT = Path(__file__).parent.parent
HOME = Path(pyspark.__file__).parent


def environment(tmp_path: Path) -> dict[str, str]:
    """Of the processes of Spark; nothing in it leads Python to slidr."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    spark = {"SPARK_HOME": str(HOME), "PYSPARK_PYTHON": sys.executable, "SPARK_WORKER_DIR": str(tmp_path / "workers")}
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**own, **spark, "PATH": path, "SPARK_DAEMON_MEMORY": "256m"}


def spark_submit(
    master: str, conf: Config, tmp_path: Path, script: Path, *words: str, env: Mapping[str, str], package: str = "", **settings: str
) -> str:
    """What a script prints that spark-submit runs on a cluster, in client mode; `a_b` sets spark.a.b, `package` goes to --py-files."""
    command = [str(HOME / "bin" / "spark-submit"), "--master", master, "--driver-memory", "1g"]
    command += ["--jars", ",".join(str(jar) for jar in jars.ensure(conf.spark.jars)), "--conf", "spark.executor.memory=1g"]
    command += ["--py-files", package] if package else []
    command += ["--conf", "spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension", "--conf", "spark.ui.enabled=false"]
    command += ["--conf", "spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog"]
    command += [word for name, value in settings.items() for word in ("--conf", f"spark.{name.replace('_', '.')}={value}")]
    command += [str(script), *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path, timeout=540, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout


@contextmanager
def two_hosts(tmp_path: Path) -> Iterator[str]:
    """A standalone master and two workers of one core on two addresses of this machine, each with folders of its own. A copy of a
    slow task runs on another host than the first attempt or not at all, and a local cluster is one host."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"spark://127.0.0.1:{free.getsockname()[1]}"
    package = "org.apache.spark.deploy"
    commands = [[f"{package}.master.Master", "--host", "127.0.0.1", "--port", url.rpartition(":")[2], "--webui-port", "0"]]
    for number in (1, 2):
        words = ["--host", f"127.0.0.{number}", "--cores", "1", "--memory", "1g", "--webui-port", "0"]
        commands.append([f"{package}.worker.Worker", *words, "--work-dir", str(tmp_path / f"worker-{number}"), url])
    with ExitStack() as running, (tmp_path / "cluster.log").open("w") as log:
        for number, command in enumerate(commands):
            env = {**environment(tmp_path), "SPARK_LOCAL_DIRS": str(tmp_path / f"scratch-{number}")}
            started = subprocess.Popen([str(HOME / "bin" / "spark-class"), *command], env=env, stdout=log, stderr=log)
            running.callback(started.wait)
            running.callback(started.terminate)
        yield url


def python_without_slidr(folder: Path) -> str:
    """An interpreter with this one's libraries and without slidr, as executors have it: the path file of an editable install is
    not read in a folder that a path file names."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site / "base.pth").write_text(f"{HOME.parent}\n")
    python = str(folder / "bin" / "python")
    found = subprocess.run([python, "-c", "import pyspark, deltalake, slidr"], capture_output=True, text=True, cwd=folder, check=False)
    assert "No module named 'slidr'" in found.stderr, found.stderr
    return python


@contextmanager
def killing(tmp_path: Path, *after: int) -> Iterator[list[Path]]:
    """Kills one executor that has finished so many tasks, then another one, and so on; yields the logs of those that it killed."""
    killed: list[Path] = []
    ended = threading.Event()
    earlier = set(_logs(tmp_path))
    watching = threading.Thread(target=_kill, args=(tmp_path, earlier, list(after), killed, ended), daemon=True)
    watching.start()
    try:
        yield killed
    finally:
        ended.set()
        watching.join()


def _logs(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("worker-*/app-*/*/stderr"))


def _kill(tmp_path: Path, earlier: set[Path], left: list[int], killed: list[Path], ended: threading.Event) -> None:
    while left and not ended.is_set():
        for log in set(_logs(tmp_path)) - earlier - set(killed):
            if left and log.read_text(errors="replace").count("Finished task") >= left[0] and _killed(log):
                killed.append(log)
                left.pop(0)
        time.sleep(0.1)


def _killed(log: Path) -> bool:
    """Kills the executor that writes this log: a grandchild of this process."""
    app, number = log.parent.parent.name, log.parent.name
    for process in psutil.Process().children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if "--executor-id" in words and app in words and words[words.index("--executor-id") + 1] == number:
            process.kill()
            return True
    return False
