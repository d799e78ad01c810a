"""What a verb writes as Markdown."""

from __future__ import annotations

from glora_search.cli.output import Output, Table

_TABLE = Table(title="Sizes", columns=("method", "top-1"), rows=[("lora", "0.5")])
_MARKDOWN = "Sizes\n\n| method | top-1 |\n| --- | --- |\n| lora | 0.5 |\n"


def test_tables_and_lines_follow_each_other() -> None:
    shown = Output(
        title=_TABLE.title,
        columns=_TABLE.columns,
        rows=_TABLE.rows,
        document={},
        lines=["two seeds", "paired"],
        more=[_TABLE],
    )
    assert shown.markdown() == f"{_MARKDOWN}\n- two seeds\n- paired\n\n{_MARKDOWN}"


def test_lines_alone_have_no_empty_table() -> None:
    assert Output(document={}, lines=["two seeds"]).markdown() == "- two seeds\n"


def test_tables_alone_have_no_empty_list() -> None:
    assert Output(document={}, more=[_TABLE]).markdown() == _MARKDOWN
