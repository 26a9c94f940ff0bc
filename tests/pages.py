"""Writes what is generated of docs/queries.md: python -m tests.pages"""

import re
from pathlib import Path

from slidr import ready
from slidr.ready import Ready

DOCS = Path(__file__).parent.parent / "docs"
QUERIES, TABLES = DOCS / "queries.md", DOCS / "tables.md"
MARK = "<!-- From here on `python -m tests.pages` writes what is in slidr/ready. -->\n"


def wanted(sql: str) -> list[str]:
    """Names of the parameters that stand in the text of a query, each once."""
    return list(dict.fromkeys(re.findall(r"\$(\w+)", sql)))


def queries() -> str:
    """The page: its own words, and the queries as they are shipped."""
    head = QUERIES.read_text(encoding="utf-8").split(MARK)[0]
    return head + MARK + "".join(_shown(one) for one in ready.every())


def _shown(one: Ready) -> str:
    parameters = [f"- `{p.name}`: {p.meaning}{'' if p.default is None else f'; default `{p.default}`'}\n" for p in one.parameters]
    return f"\n### {one.name}\n\n{one.answers}\n\n{''.join(parameters)}\n```sql\n{one.sql}\n```\n"


if __name__ == "__main__":
    QUERIES.write_text(queries(), encoding="utf-8")
