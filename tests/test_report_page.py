"""The page as a reader sees it: its HTML, and in a browser on a desktop, on a phone, in print."""

import json
import re
import shutil
import struct
import zlib
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise

import pytest

import bridgekd
from bridgekd.report.page import build_sections, render_report
from bridgekd.report.tables import escape_cell, to_single_line
from headless_browser import CHROMIUM, open_tab
from report_fixtures import HOSTILE, PLOTS, make_report_data, make_training
from test_report import a_map

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
VOID = {"meta", "link", "br", "img"}
DARK = r"prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}"


class HtmlElements(HTMLParser):
    """The elements of a page: name, attributes, the names around it, and its own text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.all = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "around": [e["tag"] for e in self.open], "text": "", **dict(attrs)}
        self.all.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def named(self, *tags):
        return [e for e in self.all if e["tag"] in tags]


@pytest.fixture(scope="module")
def page():
    return render_report(make_report_data(embedding_maps=(a_map(),)))[0]


@pytest.fixture(scope="module")
def marks(page):
    return HtmlElements(page)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_tab(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def file(page, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def test_every_picture_has_a_description(marks):
    outer = [e for e in marks.named("svg", "img") if "svg" not in e["around"]]
    assert len(outer) >= 8
    silent = [e for e in outer if not e.get("aria-label") and e.get("aria-hidden") != "true"]
    assert not silent
    assert all(e.get("role") == "img" for e in outer if "aria-label" in e)
    assert not [e for e in marks.named("figure") if not e["text"].strip()]


def test_headings_go_down_one_level_at_a_time(marks):
    levels = [int(e["tag"][1]) for e in marks.named("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_every_table_has_a_caption_and_every_header_a_scope(marks):
    tables, captions = marks.named("table"), marks.named("caption")
    assert len(tables) == len(captions) >= 7
    assert all(e["text"].strip() for e in captions)
    heads = marks.named("th")
    assert {e.get("scope") for e in heads} == {"col", "row"}
    assert all(e["text"].strip() for e in heads)


def test_ids_are_unique_and_links_have_targets(marks):
    ids = Counter(e["id"] for e in marks.all if "id" in e)
    assert set(ids.values()) == {1}
    pointed = [e["aria-labelledby"] for e in marks.all if "aria-labelledby" in e]
    pointed += [e["href"].removeprefix("#") for e in marks.named("a")]
    assert len(pointed) > 20
    assert set(pointed) <= set(ids)


def test_page_has_landmarks_language_and_skip_link(marks):
    assert marks.named("html")[0]["lang"] == "en"
    for tag in ("header", "nav", "main", "footer"):
        assert len(marks.named(tag)) == 1
    title = next(e["text"] for e in marks.named("title") if "head" in e["around"])
    assert title.startswith("tiny")
    first = marks.named("a")[0]
    assert first["href"] == "#main" and first["class"] == "skip"


def test_scrolling_regions_have_keyboard_focus_and_a_name(marks):
    scrolling = [e for e in marks.named("div") if e.get("class") == "scroll"]
    assert scrolling
    for element in scrolling:
        assert element["tabindex"] == "0" and element["role"] == "region"


def contrast(text_color, background):
    """The contrast ratio of two colors, as WCAG 2 defines it."""
    lights = []
    for color in (text_color, background):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        lights.append(sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("rule", [r":root \{(.*?)\}", DARK])
def test_text_has_enough_contrast(page, rule):
    colors = dict(re.findall(r"--(\w+): (#\w{6})", re.search(rule, page, re.DOTALL)[1]))
    for name in ("ink", "soft", "accent", "good", "bad"):
        for background in ("paper", "wash"):
            assert contrast(colors[name], colors[background]) >= 4.5, (name, background)


def test_page_and_markdown_have_the_same_tables(page):
    data = make_report_data(embedding_maps=(a_map(),))
    _, markdown = render_report(data)
    tables = [table for section in build_sections(data) for table in section.tables]
    assert len(tables) >= 7
    for table in tables:
        caption = f"**{escape_cell(table.caption)}**"
        (rows,) = (
            part.splitlines()[2:]
            for part in markdown.split(f"{caption}\n\n")[1:2]
            for part in [part.split("\n\n")[0]]
        )
        assert len(rows) == len(table.rows)
        assert all(row.replace("\\|", "").count("|") == len(table.columns) + 1 for row in rows)


def test_hostile_text_is_shown_and_never_executed(page):
    assert "<script" not in page.lower()
    assert "alert(&#39;x&#39;)" in page
    assert not re.search("[\x00-\x08\u202a-\u202e]", page)
    assert to_single_line(HOSTILE).startswith("</title>")


def test_training_without_log_is_marked_and_training_with_log_is_drawn():
    assert "no loss log" in PLOTS.training(make_training(losses=()))
    drawn = PLOTS.training(make_training())
    assert drawn.count("<circle") == 2 and "polyline" in drawn
    assert make_training().description == (
        "Bridge: loss 3.000 at update 2 and 0.500 at update 8; validation accuracy 60.0 %, 55.0 %; "
        "weights of update 4 kept."
    )


@needs_chromium
@pytest.mark.parametrize("width", [360, 1280])
def test_page_opens_without_errors_requests_or_horizontal_scrolling(browser, file, width):
    browser.open(file, width)
    logs = [p for m, p in browser.events if m in ("Runtime.consoleAPICalled", "Log.entryAdded")]
    levels = {p.get("type") or p["entry"]["level"] for p in logs}
    assert not levels & {"error", "assert"}
    assert not [p for m, p in browser.events if m == "Runtime.exceptionThrown"]
    urls = [p["request"]["url"] for m, p in browser.events if m == "Network.requestWillBeSent"]
    assert urls == [file.resolve().as_uri()]
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    wide = browser.evaluate("document.documentElement.scrollWidth")
    assert wide <= width


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_not_blank(browser, file, tmp_path, scheme):
    browser.open(file, 360, 640, prefers_color_scheme=scheme)
    shades = count_shades(browser.screenshot(tmp_path / "page.png", full_page=False))
    (common, n), *others = shades.most_common()
    assert (common > 128) == (scheme == "light")
    assert sum(count for _, count in others) > 0.02 * n
    assert len(others) > 20


@needs_chromium
def test_keyboard_reaches_main_content_and_opens_details(browser, file):
    browser.open(file)
    browser.press("Tab", 9)
    assert browser.evaluate("document.activeElement.className") == "skip"
    browser.press("Enter", 13)
    browser.settle(0.2)
    assert browser.evaluate("document.activeElement.id") == "main"
    for _ in range(40):
        browser.press("Tab", 9)
        if browser.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    browser.press("Enter", 13)
    assert browser.evaluate("document.activeElement.parentElement.open")


@needs_chromium
def test_print_shows_all_details(browser, file):
    browser.open(file)
    browser.send("Emulation.setEmulatedMedia", media="print")
    hidden = "[...document.querySelectorAll('details > :not(summary)')]"
    folded = browser.evaluate(f"{hidden}.filter(e => !e.checkVisibility()).length")
    n_all = browser.evaluate(f"{hidden}.length")
    browser.send("Emulation.setEmulatedMedia", media="screen")
    assert n_all >= 4 and folded == 0
    assert browser.evaluate(f"{hidden}.filter(e => !e.checkVisibility()).length") == n_all


def test_report_of_a_run_can_be_reproduced(tiny):
    done = bridgekd.run(tiny, methods=["bridge", "direct"])
    page, folder = done.report.read_text(), done.report.parent
    files = {"report.html", "report.md", "metrics.json", "manifest.json"}
    assert {p.name for p in folder.iterdir()} == files
    assert str(tiny.parent) not in page + (folder / "report.md").read_text()
    assert "bridgekd compare tiny.yaml --arms bridge,direct</pre>" in page
    (settings,) = re.findall(r"as YAML\">(.*?)</pre>", page, re.DOTALL)
    tiny.with_name("again.yaml").write_text(unescape(settings))
    where = json.loads((tiny.parent / "runs" / "tiny.json").read_text())["recipe"]["teacher"]
    again = bridgekd.plan(
        tiny.with_name("again.yaml"),
        methods=["bridge", "direct"],
        overrides=[f"teacher.base_url={where['base_url']}"],
    )
    assert not again.purchases


def test_report_of_a_run_shows_trainings_and_contamination(tiny):
    page = bridgekd.run(tiny).report.read_text()
    for title in ("Assistant, warmed up", "Student, instruction-tuned", "Student, BRIDGE"):
        assert f"<strong>{title}</strong>" in page
    assert "no loss log" not in page
    assert "Share 13 consecutive words" in page and "Example answers" in page
    for made in (tiny.parent / "runs").glob("report-*"):
        shutil.rmtree(made)
    next((tiny.parent / "runs").glob("train_student-*/training_log.jsonl")).unlink()
    page = bridgekd.run(tiny).report.read_text()
    assert page.count(">no loss log<") == 1


def count_shades(path):
    """The number of pixels of a PNG file by gray level, without a library."""
    data, at, packed = path.read_bytes(), 8, b""
    while at < len(data):
        (size,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        if kind == b"IHDR":
            width, height, _, color = struct.unpack(">IIBB", data[at + 8 : at + 18])
        if kind == b"IDAT":
            packed += data[at + 8 : at + 8 + size]
        at += size + 12
    n, raw = {2: 3, 6: 4}[color], zlib.decompress(packed)
    shades, above = Counter(), bytearray(width * n)
    for y in range(height):
        start = y * (width * n + 1)
        above = unfilter(raw[start], bytearray(raw[start + 1 : start + 1 + width * n]), above, n)
        shades.update(above[1::n])  # green stands for gray
    return shades


def unfilter(filter_type, row, above, n):
    """A row of a PNG file without its filter."""
    for i in range(len(row)):
        left, corner = (row[i - n], above[i - n]) if i >= n else (0, 0)
        up = above[i]
        paeth = min((left, up, corner), key=lambda v: abs(left + up - corner - v))
        row[i] = (row[i] + (0, left, up, (left + up) // 2, paeth)[filter_type]) & 255
    return row
