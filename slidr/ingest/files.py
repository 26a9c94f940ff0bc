"""Which files there are, through Hadoop's file system, so that folders, spaces, .gz and object stores work alike."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from slidr.errors import InputError

ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
PACKED = (".gz", ".bz2", ".zst", ".snappy", ".lz4")


@dataclass(frozen=True)
class InputFile:
    """`uri` is Spark's name of the file, `name` the one for people and for `rejects`."""

    uri: str
    name: str
    size: int
    format: str

    @property
    def glob(self) -> str:
        """The path for Spark's readers, which would take []{}*? for a pattern."""
        return re.sub(r"([\[\]{}*?\\])", r"\\\1", self.name)


def find_files(spark: SparkSession, paths: Sequence[str], format: str) -> list[InputFile]:
    """Files behind paths and folders, sorted and each once. Raises InputError for a missing path and where nothing is to read."""
    found: dict[str, InputFile] = {}
    for path in paths:
        statuses = list_files(spark, path)
        if statuses is None:
            raise InputError(f"expected a file or folder at {path}, found none; check the path")
        for uri, name, size in statuses:
            found[uri] = InputFile(uri, name, size, _format(name, format) if size else "empty")
    if not any(file.size for file in found.values()):
        what = "only empty files" if found else "no file"
        raise InputError(f"expected rows in {', '.join(paths)}, found {what}; check that the delivery is complete")
    return sorted(found.values(), key=lambda file: file.name)


def _format(name: str, format: str) -> str:
    if format != "auto":
        return format
    plain = name.lower()
    for ending in PACKED:
        plain = plain.removesuffix(ending)
    for ending, kind in ENDINGS.items():
        if plain.endswith(ending):
            return kind
    raise InputError(f"expected a file that ends in {', '.join(ENDINGS)} (or these with .gz), found {name}; set `format` in the source")


def hadoop_path(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """The file system and its path object."""
    place = spark._jvm.org.apache.hadoop.fs.Path(path)  # type: ignore[union-attr]
    return place.getFileSystem(spark._jsc.hadoopConfiguration()), place


def list_files(spark: SparkSession, path: str) -> list[tuple[str, str, int]] | None:
    """(uri, name, bytes) of each file, folders walked; names that begin with _ or . are skipped. None where there is nothing.

    Raises InputError for a link that leads out of the folder, or to a folder: a delivery holds its own files.
    """
    fs, place = hadoop_path(spark, path)
    if not fs.exists(place):
        return None
    status = fs.getFileStatus(place)
    return _walk(fs, place, _local(status)) if status.isDirectory() else [_entry(status)]


def _walk(fs: Any, place: Any, root: Path | None) -> list[tuple[str, str, int]]:
    files = []
    for status in fs.listStatus(place):
        if status.getPath().getName().startswith(("_", ".")):
            continue
        if root is not None:
            _refuse_way_out(_local(status) or root, root, folder=status.isDirectory())
        files += _walk(fs, status.getPath(), root) if status.isDirectory() else [_entry(status)]
    return files


def _local(status: Any) -> Path | None:
    """The path on a disk of this machine; None in other stores, which have no links."""
    uri = status.getPath().toUri()
    return Path(uri.getPath()) if uri.getScheme() == "file" else None


def _refuse_way_out(path: Path, root: Path, *, folder: bool) -> None:
    if root.resolve() not in path.resolve().parents or (folder and path.is_symlink()):
        raise InputError(
            f"expected files and folders of its own in {root}, found the link {path.relative_to(root)} to {path.resolve()}; "
            "give the path that it leads to, or remove it"
        )


def _entry(status: Any) -> tuple[str, str, int]:
    path = status.getPath()
    return re.sub("^file:/+", "file:/", path.toUri().toString()), re.sub(r"^file:/+", "/", path.toString()), status.getLen()


def first_line(spark: SparkSession, file: InputFile) -> str | None:
    """The first line of a text file, unpacked where its name says so; None where there is none."""
    jvm = spark._jvm
    fs, place = hadoop_path(spark, file.name)
    codecs = jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(spark._jsc.hadoopConfiguration())  # type: ignore[union-attr]
    codec = codecs.getCodec(place)
    stream = fs.open(place)
    try:
        stream = codec.createInputStream(stream) if codec else stream
        reader = jvm.java.io.BufferedReader(jvm.java.io.InputStreamReader(stream, "UTF-8"))  # type: ignore[union-attr]
        line = reader.readLine()
    except Exception as error:
        raise InputError(f"could not read {file.name}: {_reason(error)}; check that the file is whole") from error
    finally:
        stream.close()
    return None if line is None else str(line).removeprefix("\ufeff")


def _reason(error: Exception) -> str:
    java = getattr(error, "java_exception", None)
    return str(java.toString() if java is not None else error).splitlines()[0][:300]


def header(line: str, *, delimiter: str, quote: str) -> list[str]:
    """Column names of a CSV header line."""
    return next(csv.reader([line], delimiter=delimiter, quotechar=quote), [])
