"""Secrets are in nothing that slidr says or writes: command lines, messages, results, traces, logs, records."""

import json
import logging
import re
from datetime import datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from slidr import config, direct, redaction
from slidr.cli import app, main
from slidr.config import Config
from slidr.direct import Place
from slidr.errors import SetupError
from slidr.redaction import Redaction
from slidr.registry.store import Store
from slidr.run import Job, Outcome, execute
from slidr.tables import RUNS

S3, DATABASE, TOKEN, KEY = "s3cr3t-of-the-store", "hunter2-of-the-db", "dapi-of-the-server", "ab" * 32
SECRETS = (S3, DATABASE, TOKEN, KEY)
URI = f"postgresql://slidr:{DATABASE}@db.example.com:5432/registry"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (f"expected {URI}, found none", "expected postgresql://***@db.example.com:5432/registry, found none"),
        ("https://user:a@b@host/x?y=1", "https://***@host/x?y=1"),
        ("spark.hadoop.fs.s3a.secret.key=abc123 rest", "spark.hadoop.fs.s3a.secret.key=*** rest"),
        ('{"fs.azure.account.key.x.net": "abc=="}', '{"fs.azure.account.key.x.net": "***"}'),
        ("GET /?X-Amz-Signature=abc&X-Amz-Security-Token=def&a=1", "GET /?X-Amz-Signature=***&X-Amz-Security-Token=***&a=1"),
        ("Password: abc, user: ann", "Password: ***, user: ann"),
        ("write to ann@example.com or https://example.com/a@b", "write to ann@example.com or https://example.com/a@b"),
        ("access_key_id=abc secret=***", "access_key_id=*** secret=***"),
    ],
)
def test_secrets_are_known_by_their_form(said: str, kept: str) -> None:
    assert Redaction().text(said) == kept
    assert Redaction().text(kept) == kept


@pytest.fixture
def secret(conf: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Config:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    monkeypatch.setenv("SLIDR_TEST_KEY", KEY)
    changes = [f"spark.settings.fs.s3a.secret.key={S3}", f"registry.uri={URI}", "ingest.pseudonym_key_variable=SLIDR_TEST_KEY"]
    return config.changed(conf, [*changes, f"lake.root={tmp_path}/lake", f"work.root={tmp_path}/work"], option="--set")


def test_secrets_of_settings_and_environment_are_known_by_their_value(secret: Config) -> None:
    said = redaction.of(secret).text("; ".join(SECRETS))
    assert said == "***; ***; ***; ***"


def failing(_: Job) -> Outcome:
    logging.getLogger("slidr").error("log: %s", SECRETS)
    raise RuntimeError(f"raised: {SECRETS}")


def telling(job: Job) -> Outcome:
    job.say(f"progress: {SECRETS}")
    return Outcome({"uri": URI, "list": [S3], "map": {"a": TOKEN}}, said=f"said: {SECRETS}")


@pytest.mark.parametrize("action", [failing, telling])
@pytest.mark.parametrize("as_json", [True, False])
def test_nothing_that_a_command_leaves_holds_a_secret(
    secret: Config, action: object, as_json: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    kept, root.handlers = root.handlers, []  # pytest's own; a command's process has none
    try:
        words = ["slidr", "train", "--set", f"spark.settings.fs.s3a.secret.key={S3} x", "--set", f"registry.uri={URI}"]
        code = execute(words, action, conf=secret, as_json=as_json, quiet=False, verbose=True)  # type: ignore[arg-type]
    finally:
        root.handlers = kept
    said = "".join(capfd.readouterr())
    written = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert code == (1 if action is failing else 0)
    assert ("Traceback" in said) == (action is failing)
    assert "secret.key=***" in json.loads(written)["command"]
    assert not [one for one in SECRETS if one in said + written]


def test_a_query_is_on_record_without_what_it_looks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [])
    settings = [f"--set={key}" for key in (f"lake.root={tmp_path}/lake", f"work.root={tmp_path}/work", f"registry.uri={URI}")]
    direct.create(Place(f"{tmp_path}/lake"), RUNS)
    query = "SELECT run_id FROM runs WHERE command = '198.51.100.9' AND run_id <> $who"
    for words in ([query, "--param", "who=ann-7731"], [query, "--param=who=ann-7731"], ["SELECT CAST('198.51.100.9' AS INT) FROM runs"]):
        with pytest.raises(SystemExit):
            main(["sql", *words, *settings])
    written = "".join(path.read_text() for path in tmp_path.rglob("run_result.json"))
    rows = direct.read(Place(f"{tmp_path}/lake"), RUNS).rows
    assert sorted(row["exit_code"] for row in rows) == [0, 0, 2]
    assert written.count("run_id FROM runs") == 2
    assert "Conversion Error" in written
    assert not [one for one in ("198.51.100.9", "ann-7731", DATABASE) if one in written + str(rows)]


def test_an_invalid_setting_is_told_without_its_value() -> None:
    shown = CliRunner().invoke(app, ["tables", "--set", f"registry.uri={URI.replace('postgresql', 'ftp')}"])
    assert shown.exit_code == 3
    unknown = CliRunner().invoke(app, ["tables", "--set", f"spark.{URI}=1", "--set", f"x.password={DATABASE}"])
    assert unknown.exit_code == 3
    assert "***" in unknown.output
    assert not [one for one in SECRETS if one in shown.output + unknown.output]


def test_what_mlflow_says_of_a_server_is_redacted(conf: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = Store(conf.registry.model_copy(update={"uri": f"http://slidr:{DATABASE}@127.0.0.1:9"}))
    with pytest.raises(SetupError, match=r"http://\*\*\*@127.0.0.1:9") as told:
        store.log_numbers("monitoring", {"a": 1.0}, datetime(2026, 3, 1))
    assert DATABASE not in str(told.value)


def test_spark_s_own_pages_hide_the_same_settings(spark: SparkSession) -> None:
    hides = re.compile(spark.sparkContext.getConf().get("spark.redaction.regex", ""))
    secret = (
        "fs.s3a.secret.key",
        "fs.s3a.access.key",
        "fs.azure.account.key.x.net",
        "fs.s3a.session.token",
        "my.password",
        "a.credentials",
    )
    assert [name for name in secret if not hides.search(f"spark.hadoop.{name}")] == []
    assert not hides.search("spark.sql.shuffle.partitions")
