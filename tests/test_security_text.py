"""No SQL and no shell is made from text: a lint over all code that slidr ships, with the few made texts on a list, each with its reason."""

import ast
import re
from collections.abc import Iterator

import pytest

from slidr import pages
from slidr.run import Outcome
from tests.test_layers import ROOT, modules

# Functions whose text is SQL, or a filter of MLflow's; `option` where it is Delta's replaceWhere.
SPARK = {"sql", "expr", "selectExpr", "where", "filter", "update", "merge", "delete", "agg", "having", "option", "createOrReplaceTempView"}
OTHERS = {"execute", "extract_statements", "query", "eval", "search_model_versions", "search_registered_models", "search_runs", "_versions"}
NUMBER = "a number that the settings model has checked"
NAME = "the registered model's name, which the settings model lets be letters, digits, - and _"
ALLOWED = {
    ("slidr/lake.py", "where"): "names of declared columns, dates, and values that are letters alone",
    ("slidr/upkeep.py", "where"): "names of declared columns, and dates",
    ("slidr/labels.py", "f'INTERVAL {conf.attribution_days} DAYS'"): NUMBER,
    ("slidr/labels.py", "f'INTERVAL {conf.rfm_days} DAYS'"): NUMBER,
    ("slidr/labels.py", "f'INTERVAL {conf.heavy_minutes} MINUTES'"): NUMBER,
    ("slidr/monitoring/metrics.py", "f'INTERVAL {conf.heavy_minutes} MINUTES'"): NUMBER,
    ("slidr/monitoring/metrics.py", "f'INTERVAL {h} HOURS'"): "a number of the code",
    ("slidr/ingest/settle.py", "f'{name}__in'"): "a name of TARGETS",
    ("slidr/registry/store.py", "f\"name = '{self.conf.name}'\""): NAME,
    ("slidr/registry/store.py", "f\"name = '{self.conf.name}' and tags.identity = '{_hex(identity)}'\""): f"{NAME}, and hex digits",
    ("slidr/registry/store.py", "f\"attributes.run_name = '{name}'\""): "a name of the code",
}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn", "asyncio.create_subprocess_shell"}


def is_made(node: ast.AST) -> bool:
    """Whether text is put together here."""
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        return any(
            isinstance(side, ast.JoinedStr) or isinstance(side, ast.Constant) and isinstance(side.value, str) or is_made(side)
            for side in (node.left, node.right)
        )
    called = node.func if isinstance(node, ast.Call) else None
    if isinstance(called, ast.Attribute) and called.attr in ("format", "join", "replace", "substitute", "safe_substitute"):
        return True
    return isinstance(node, ast.IfExp) and (is_made(node.body) or is_made(node.orelse))


def made_names(function: ast.AST) -> set[str]:
    """Variables that hold text put together within a function."""
    found = set()
    for node in ast.walk(function):
        value = node.value if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) else None
        if value is not None and is_made(value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]  # type: ignore[attr-defined]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def made_sql(tree: ast.AST) -> Iterator[str]:
    """Texts that are put together and given to a sink."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Module)]
    for function in functions:
        names = made_names(function) if isinstance(function, ast.FunctionDef) else set()
        for call in [node for node in ast.walk(function) if isinstance(node, ast.Call)]:
            name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
            given = [*call.args, *[keyword.value for keyword in call.keywords]]
            if (
                name not in SPARK | OTHERS
                or ast.unparse(call.func) == "execute"
                or name == "option"
                and ast.unparse(given[0]) != "'replaceWhere'"
            ):
                continue
            yield from {ast.unparse(arg) for arg in given if is_made(arg) or isinstance(arg, ast.Name) and arg.id in names}


def test_no_sql_is_made_from_text() -> None:
    found = {(path, text) for path in modules() for text in made_sql(ast.parse((ROOT / path).read_text(encoding="utf-8")))}
    assert found - set(ALLOWED) == set(), "use the column API, or parameters"
    assert set(ALLOWED) - found == set(), "the list holds what the code has no more"


@pytest.mark.parametrize(
    "code",
    [
        "spark.sql(f'SELECT * FROM {table}')",
        "spark.sql('SELECT * FROM ' + table)",
        "spark.sql('SELECT * FROM %s' % table)",
        "spark.sql('SELECT * FROM {}'.format(table))",
        "spark.sql(TEXT.replace('$day', day))",
        "df.where(f\"user_id = '{user}'\")",
        "df.filter('a = ' + user + ' or b')",
        "F.expr(' '.join(words))",
        "connection.execute(f'{user}')",
        "def f(user):\n    text = f'a = {user}'\n    return df.where(text)",
        "def f(user):\n    text = 'a = 1'\n    text += f' or b = {user}'\n    return df.where(text)",
        "writer.option('replaceWhere', f'a = {user}')",
        "df.where('a = 1' if plain else f'a = {user}')",
        "delta.update(condition=f'a = {user}', set={})",
    ],
)
def test_the_lint_sees_made_sql(code: str) -> None:
    assert list(made_sql(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "df.where('a = 1')",
        "df.where(F.col(f'{name}') == 1)",
        "connection.execute(STATEMENT, given)",
        "reader.option('versionAsOf', f'{v}')",
    ],
)
def test_the_lint_lets_plain_text_through(code: str) -> None:
    assert not list(made_sql(ast.parse(code)))


def test_no_shell_is_asked() -> None:
    for path in modules():
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert name not in SHELLS, f"{path}: {name}"
            assert not name.startswith(("os.exec", "os.spawn", "os.posix_spawn")), f"{path}: {name}"
            if isinstance(node, ast.Call) and name.startswith("subprocess."):
                assert isinstance(node.args[0], ast.List), f"{path}: a list of words, not a line for a shell"
                assert not {"shell", "executable"} & {keyword.arg for keyword in node.keywords}, path


def test_every_dependency_is_judged_in_the_docs() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    lists = {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)}
    names = [re.split("[<>=]", text)[0] for text in (*lists["BASE"], *lists["TRAIN"])]
    assert len(names) > 15
    assert [name for name in names if name not in page] == []


def test_nothing_in_a_page_goes_past_the_escaping() -> None:
    pages = sorted((ROOT / "slidr").rglob("*.j2"))
    assert len(pages) >= 5
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"\|\s*safe|autoescape|Markup|<script|\son\w+=|javascript:|\w=\{\{", text), page
        places = re.findall(r'(\w+)="[^"{]*\{\{', text)
        assert set(places) <= {"src", "alt", "class", "colspan", "rowspan", "title", "id"}, f"{page}: {places}"


def test_no_csv_file_holds_a_formula() -> None:
    assert [pages.cell(value) for value in ("=1+1", "@x", "-1", "+1", "\t=1", "adv-1", -1, None)] == [
        *("'=1+1", "'@x", "'-1", "'+1", "'\t=1", "adv-1", -1, None),
    ]
    written = {path for path in modules() if re.search(r"csv\.(writer|DictWriter)|\.to_csv\(", (ROOT / path).read_text(encoding="utf-8"))}
    written -= {"slidr/backtest/report.py"}  # its texts are names of variants and settings, which begin with a letter or digit
    assert [path for path in written if "pages.cell" not in (ROOT / path).read_text(encoding="utf-8")] == []


def test_what_a_notebook_shows_is_escaped() -> None:
    shown = Outcome({}, {"<script>title": [{"<script>name": "<script>agent"}]}, said="<script>said")._repr_html_()
    assert "<script" not in shown
    assert shown.count("&lt;script") == 4
