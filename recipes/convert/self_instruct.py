"""Self-Instruct's seed tasks (`seed_tasks.jsonl`) as an instruction set: one row per instance."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from files import make_parser, parse_options, run_script, write_jsonl

from bridgekd.io.raw_rows import iter_raw_rows


def read_self_instruct(path: Path) -> Iterator[dict[str, str]]:
    """Yield instruction, input and output of every instance of every task."""
    for _, row in iter_raw_rows(path):
        instances: Any = row["instances"]
        for instance in instances:
            texts = {name: instance[name] for name in ("input", "output")}
            yield {"instruction": row["instruction"], **texts}


def main() -> None:
    options = parse_options(make_parser(str(__doc__)))
    write_jsonl(options.output, read_self_instruct(options.file))


if __name__ == "__main__":
    run_script(main)
