"""Text of servers, files and recipes in the terminal is text, and no command for it."""

import io
import re
from pathlib import Path

import pytest
from rich.text import Text

import bridgekd
from bridgekd.api_client.chat_completion import RequestCost
from bridgekd.cli.main import main
from bridgekd.cli.progress_bars import show_progress
from bridgekd.cli.terminal import PlainConsole, make_printer, make_table, print_table
from bridgekd.ledger.ledger import Ledger

MARKUP = ["m[/x]", "g[l]pt", "/data/[team]/x", "[bold]a[/bold]", ":smile:", "[link=x]y", r"a\[b]"]
CONTROLS = {
    "\x1b[2Jcleared": "cleared",
    "a\x1b]0;title\x07b": "ab",
    "a\x1b]8;;http://x\x1b\\link": "alink",
    "\x1bPq#0\x1b\\sixel": "sixel",
    "a\rb\x08\x7f\x00\x9bc": "abc",
    "\u202eright\u2066": "right",
    "tab\tand\nline": "tab\tand\nline",
}


def make_console(**settings):
    page = io.StringIO()
    return PlainConsole(file=page, width=200, **settings), page


@pytest.mark.parametrize("text", MARKUP)
def test_brackets_are_text_everywhere(text):
    console, page = make_console()
    console.print(text)
    make_printer(console)(text)
    table = make_table(text, (text,))
    table.add_row(text)
    print_table(console, table)
    console.print(Text(text, "bold"))
    with show_progress(console) as progress:
        progress(text, 1, 1)
    assert page.getvalue().count(text) == 7


@pytest.mark.parametrize("text", CONTROLS)
def test_controls_are_removed_everywhere(text):
    console, page = make_console()
    console.print(text)
    make_printer(console)(text)
    table = make_table(text, (text,))
    table.add_row(text)
    print_table(console, table)
    with show_progress(console) as progress:
        progress(text, 1, 1)
    shown = page.getvalue()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    if "\t" not in text:
        assert shown.count(CONTROLS[text]) == 6


def test_progress_bar_shows_work_without_controls():
    console, page = make_console(force_terminal=True, color_system=None)
    with show_progress(console) as progress:
        progress("a\x1b]0;title\x07[/b]", 1, 1)
    assert "a[/b]" in page.getvalue() and "title" not in page.getvalue()


def test_commands_write_to_the_plain_console_alone():
    """One place removes controls: no command makes a console or uses the markup of rich."""
    for path in Path(bridgekd.__file__).parent.rglob("*.py"):
        code = path.read_text()
        if path.name != "terminal.py":
            assert not re.search(
                r"\bConsole\(|rich\.markup|markup=(?!False)|\[/(dim|bold)?\]", code
            ), path


def test_ledger_and_status_show_hostile_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "d[/x]"
    folder.mkdir(parents=True)
    request = {"provider": "p", "model": "m[/x]\x1b[2J", "messages": [], "sample_index": 0}
    with Ledger(folder / "l.db") as ledger:
        attempt_id = ledger.reserve(request, run="r[/]", purpose="train", reserve_microusd=9)
        ledger.record(attempt_id, "{}", price=None, request_id="=HYPERLINK(1)")
        ledger.settle(attempt_id, "answered", RequestCost(1, 2, 3))
    shown = ""
    for command in (["show"], ["export", "--to", "d[/x]/a.csv"], ["verify"]):
        assert main(["ledger", "--ledger", "d[/x]/l.db", *command]) in (0, 2)
        printed = capsys.readouterr()
        shown += printed.out + printed.err
    assert "m[/x]" in shown and "d[/x]/l.db" in shown and "\x1b" not in shown
    assert main(["init", "d[/x]/r[l].yaml"]) == 0
    assert "d[/x]/r[l].yaml" in capsys.readouterr().out
    assert main(["status", "no[/x]"]) == 2
    assert "no[/x]" in capsys.readouterr().err
    assert main(["run", "--[/x]"]) == 2
    assert "--[/x]" in capsys.readouterr().err
