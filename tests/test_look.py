"""Looking things up without Spark, as a user does it: queries, their output, their errors, and the tables."""

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from slidr import direct
from slidr.cli import app
from slidr.direct import Place
from slidr.tables import CLICKS, LABELS, RUNS
from tests import decided
from tests.frames import at, click


class Shell:
    """The commands on one lake; a command that starts Spark fails."""

    def __init__(self, root: Path) -> None:
        self.place = Place(str(root / "lake"))
        self.options = ["--set", f"lake.root={self.place.root}", "--set", f"work.root={root}/work", "-q"]

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, [*words, *self.options])

    def json(self, *words: str, code: int = 0) -> dict:
        result = self.run(*words, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("this command started Spark")

    monkeypatch.setattr("slidr.session.build", refused)
    shell = Shell(tmp_path)
    hard = click("c2", at("2026-03-10 12:00:00"), user_agent='say "hi",\n[red]x[/red]', cost_micros=None, ip="", campaign_id="y" * 300)
    direct.add(shell.place, CLICKS, [click("c1", at("2026-03-10 11:59:59.000001")), hard])
    return shell


def test_json_has_plain_values(shell: Shell) -> None:
    text = "SELECT sum(cost_micros) AS micros, max(click_time) AS last, min(click_date) AS day, count(*) AS n, avg(2.5) AS x FROM clicks"
    expected = {"micros": 100_000, "last": "2026-03-10T12:00:00Z", "day": "2026-03-10", "n": 2, "x": 2.5}
    found = shell.json("sql", text)
    assert found["rows"] == [expected]
    assert type(found["rows"][0]["micros"]) is int


def test_csv_is_what_a_csv_reader_reads(shell: Shell) -> None:
    shown = shell.run(
        "sql", "SELECT click_id, user_agent, cost_micros, ip, campaign_id, [1, 2] AS l FROM clicks ORDER BY 1", "--csv"
    ).stdout
    head, first, second = csv.reader(io.StringIO(shown))
    assert head == ["click_id", "user_agent", "cost_micros", "ip", "campaign_id", "l"]
    assert first == ["c1", "agent", "100000", "192.0.2.1", "cam-1", "[1, 2]"]
    assert second == ["c2", 'say "hi",\n[red]x[/red]', "", "", "y" * 300, "[1, 2]"]
    assert ',,"",' in shown  # NULL beside an empty string


def test_a_terminal_shows_the_first_rows_and_programs_get_all(shell: Shell) -> None:
    many = "SELECT unnest(range(150)) AS n"
    shown = shell.run("sql", many).stdout
    assert ("99" in shown.split(), shown.split().count("100")) == (True, 1)  # the sentence has it
    assert "First 100 rows; --limit shows more." in shown
    assert "149" in shell.run("sql", many, "--limit", "150").stdout.split()
    assert shell.json("sql", many)["count"] == len(shell.json("sql", many)["rows"]) == 150
    assert len(shell.run("sql", many, "--csv").stdout.splitlines()) == 151
    assert [row["n"] for row in shell.json("sql", many, "--limit", "2")["rows"]] == [0, 1]
    assert len(shell.run("sql", many, "--csv", "--limit", "3").stdout.splitlines()) == 4


def test_parameters_are_values_and_never_sql(shell: Shell) -> None:
    text = "SELECT click_id FROM clicks WHERE user_agent = $agent OR cost_micros > $more"
    assert shell.json("sql", text, "--param", "agent=' OR 1=1 --", "--param", "more=99999")["rows"] == [{"click_id": "c1"}]
    assert shell.json("sql", "SELECT $x AS x", "--param", "x=a=b")["rows"] == [{"x": "a=b"}]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["SELECT nothing FROM clicks"], 'Referenced column "nothing" not found'),
        (["SELECT 1 FROM nowhere"], "expected the tables clicks, corrections"),
        (["SELEC 1"], 'syntax error at or near "SELEC"'),
        (["SELECT 1; SELECT 2"], "found another statement or several"),
        (["DROP TABLE clicks"], "found another statement"),
        (["PRAGMA version"], "found another statement"),
        (["SET threads = 1"], "found another statement"),
        ([""], "found another statement"),
        (["SELECT * FROM read_csv('/etc/passwd')"], "file system operations are disabled"),
        (["SELECT * FROM clicks WHERE click_date = $day"], "expected values for the parameters ['day'], found none"),
        (["SELECT 1 AS x", "--param", "day=1"], "found ['day']"),
        (["SELECT CAST($day AS DATE)", "--param", "day=soon"], 'invalid date field format: "soon"'),
        (["SELECT CAST(device AS INT) AS n FROM clicks"], "Could not convert string 'desktop' to INT32"),
        (["SELECT 1 AS a, 2 AS a"], "found a more than once"),
        (["SELECT 1 AS x", "--param", "day"], "expected NAME=VALUE, found day"),
        (["SELECT $d AS x", "--param", "d=1", "--param", "d=2"], "expected each name once"),
        (["SELECT 1 AS x", "--csv", "--json"], "found both"),
        (["SELECT 1 AS x", "--ready", "statement"], "found both"),
        ([], "found neither"),
        (["--ready", "statment"], "did you mean statement?"),
        (["--ready", "why_click"], "found no click_id"),
    ],
)
def test_what_cannot_be_asked_is_one_short_message(shell: Shell, words: list[str], message: str) -> None:
    result = shell.run("sql", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "LINE 1" not in result.stderr


def test_a_table_that_is_not_there_yet_says_what_makes_it(shell: Shell) -> None:
    assert "run `slidr init`" in shell.json("sql", "SELECT count(*) AS n FROM labels", code=3)["message"]


def test_the_answer_is_not_on_record_but_the_run_is(shell: Shell) -> None:
    found = shell.json("sql", "SELECT ip FROM clicks WHERE click_id = 'c1'")
    assert found["rows"] == [{"ip": "192.0.2.1"}]
    [row] = direct.read(shell.place, RUNS).rows
    assert (row["run_id"], row["outcome"], json.loads(row["counts"])) == (found["run_id"], "done", {"count": 1})
    assert not [path for path in Path(shell.place.root).parent.glob("work/**/*.json") if "192.0.2" in path.read_text()]


def test_who_may_only_read_the_lake_gets_the_answer(shell: Shell) -> None:
    (Path(shell.place.root) / "runs").touch()  # in its place no table can be made; even root can't
    assert shell.json("sql", "SELECT count(*) AS n FROM clicks")["rows"] == [{"n": 2}]
    shell.options.remove("-q")
    assert "no row in the table runs" in shell.run("sql", "SELECT count(*) AS n FROM clicks").stderr


def test_ready_queries_are_listed_and_answered(shell: Shell) -> None:
    assert [row["query"] for row in shell.json("sql", "--ready", "list")["queries"]][:2] == ["statement", "why_click"]
    direct.create(shell.place, decided.CURRENT_DECISIONS)
    found = shell.json("sql", "--ready", "decision_rate", "--param", "from_day=2026-03-10")
    assert [(row["clicks"], row["decided"], row["by_model"]) for row in found["rows"]] == [(2, 0, 0)]


def test_tables_are_listed_from_the_log(shell: Shell) -> None:
    rows = {row["table"]: row for row in shell.json("tables")["tables"]}
    assert (rows["clicks"]["version"], rows["clicks"]["rows"], rows["clicks"]["grain"]) == (1, 2, "click_id")
    assert (rows["labels"]["version"], rows["labels"]["rows"]) == (-1, None)
    shown = shell.json("tables", "replay_decisions")
    assert (shown["grain"], shown["partitions"]) == (["replay_id", "click_id"], ["click_date"])
    score = next(column for column in shown["columns"] if column["column"] == "score")
    assert score == {"column": "score", "type": "double", "null": "yes", "key": "", "partition": "", "meaning": score["meaning"]}
    assert "expected one of the tables clicks," in shell.json("tables", "klicks", code=2)["message"]
    assert "origin" in {column["column"] for column in shell.json("tables", "features")["columns"]}
    assert shell.run("tables", "--markdown").stdout.startswith("# Tables\n")


def test_a_lake_is_compared_with_the_declarations(shell: Shell, tmp_path: Path) -> None:
    assert shell.json("tables", "check")["tables"] == 1
    direct.create(shell.place, LABELS)
    log = Path(shell.place.root) / "labels/_delta_log/00000000000000000000.json"
    changed = (
        log.read_text().replace("purchase, rfm or none", "why").replace(r'"rfm_score\",\"type\":\"integer', r'"rfm_score\",\"type\":\"long')
    )
    log.write_text(changed)
    message = shell.json("tables", "check", code=3)["message"]
    assert "labels: comment of label_reason: expected purchase, rfm or none, found why" in message
    assert "labels: column rfm_score: expected int, found bigint" in message
    assert "expected tables in" in Shell(tmp_path / "other").json("tables", "check", code=3)["message"]
