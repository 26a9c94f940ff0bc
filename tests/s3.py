"""A local S3 server, and Spark's and delta-rs's settings for it. The jars (558 MB) are fetched once from Maven Central."""

import hashlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slidr import config, jars

CENTRAL = "https://repo1.maven.org/maven2"
PACKAGES = (
    "org/apache/hadoop/hadoop-aws/3.4.1/hadoop-aws-3.4.1.jar",  # pyspark's Hadoop is 3.4.1: no other version works
    "software/amazon/awssdk/bundle/2.24.6/bundle-2.24.6.jar",
)
FOLDER = Path("~/.cache/slidr/s3").expanduser()
BUCKET = "lake"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}


def fetched() -> list[Path]:
    """The jars of Spark's S3 client, whole by the checksums that the repository gives."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        path = FOLDER / Path(package).name
        if not path.is_file():
            partial = path.with_suffix(f".{os.getpid()}.partial")
            urllib.request.urlretrieve(f"{CENTRAL}/{package}", partial)
            with urllib.request.urlopen(f"{CENTRAL}/{package}.sha1") as found:
                assert hashlib.sha1(partial.read_bytes()).hexdigest() == found.read().decode().split()[0], path
            partial.replace(path)
    return [FOLDER / Path(package).name for package in PACKAGES]


def environment(url: str) -> dict[str, str]:
    """For processes that reach the server by delta-rs."""
    return {**CREDENTIALS, "AWS_ENDPOINT_URL": url}


def settings(url: str) -> dict[str, str]:
    """For Spark."""
    folder = config.load(config.shipped("local.yaml")).spark.jars
    return {
        "spark.jars": ",".join(str(path) for path in [*jars.ensure(folder), *fetched()]),
        "spark.hadoop.fs.s3a.endpoint": url,
        "spark.hadoop.fs.s3a.endpoint.region": CREDENTIALS["AWS_REGION"],
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.connection.ssl.enabled": "false",
        "spark.hadoop.fs.s3a.aws.credentials.provider": "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
        "spark.hadoop.fs.s3a.access.key": CREDENTIALS["AWS_ACCESS_KEY_ID"],
        "spark.hadoop.fs.s3a.secret.key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    }


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def server() -> Iterator[str]:
    """URL of a server of its own process with one empty bucket."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _make_bucket(url, process)
        yield url
    finally:
        process.terminate()
        process.wait()


def _make_bucket(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, "the S3 server ended"
        try:
            urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT")).close()
            return
        except urllib.error.URLError:
            assert time.monotonic() < deadline, "the S3 server does not answer"
            time.sleep(0.2)
