"""Tables that a script writes into a document, between two comments with the section's name."""

from pathlib import Path


def replace_section(document: Path, name: str, text: str) -> None:
    """Write `text` between the two comments of `name`. SystemExit if the document has none."""
    before, after = split_at_section(document, name)
    document.write_text(f"{before}\n{text.strip()}\n{after}", encoding="utf-8")


def split_at_section(document: Path, name: str) -> tuple[str, str]:
    """Return what is before and after the section, comments included. SystemExit without them."""
    begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
    before, mark, rest = document.read_text(encoding="utf-8").partition(begin)
    _, other, after = rest.partition(end)
    if not mark or not other:
        raise SystemExit(f"{document} lacks the comments {begin} and {end}. Add them.")
    return before + begin, end + after
