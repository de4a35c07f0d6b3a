"""Any CSV, TSV, JSONL or Parquet file with columns: `--column question=text --column answer=label`.

With several files a row's domain is the name of its folder, or of its file where files share one.
`--question-suffix` puts a line below every question. `--test-size` holds out questions by hash.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from files import make_parser, parse_options, run_script, sample_questions, write_split

from bridgekd.grading.answer_type import load_answer_type
from bridgekd.io.dataset_reader import read_examples
from bridgekd.recipe import ColumnNames
from bridgekd.records import Example
from bridgekd.variants import VariantSettings

TEXT = load_answer_type(VariantSettings(name="text"))


def read_tables(files: Sequence[Path], columns: ColumnNames, suffix: str = "") -> Iterator[Example]:
    """Yield the questions of the files in their order."""
    for path, name in zip(files, _name_files(files), strict=True):
        for example in read_examples(path, columns, TEXT):
            asked = f"{example.question}\n{suffix}" if suffix else example.question
            id = f"{name}-{example.id}" if name else example.id
            yield replace(example, id=id, question=asked, domain=name or example.domain)


def _name_files(files: Sequence[Path]) -> list[str]:
    """Return what tells several files apart: their folders, their names, or both."""
    if len(files) == 1:
        return [""]
    folders = [path.resolve().parent.name for path in files]
    names = [path.name.partition(".")[0] for path in files]
    both = [f"{folder}-{name}" for folder, name in zip(folders, names, strict=True)]
    return next((labels for labels in (folders, names) if len(set(labels)) == len(files)), both)


def main() -> None:
    parser = make_parser(str(__doc__), several=True)
    parser.add_argument("--column", action="append", default=[], metavar="NAME=COLUMN")
    parser.add_argument("--question-suffix", default="", metavar="TEXT")
    parser.add_argument("--test-size", default="0", help="a number of questions, or 30%%")
    parser.add_argument("--test-output", type=Path)
    options = parse_options(parser)
    columns = ColumnNames(**dict(pair.partition("=")[::2] for pair in options.column))
    examples = list(read_tables(options.files, columns, options.question_suffix))
    test_questions = sample_questions(examples, options.test_size)
    if bool(test_questions) != (options.test_output is not None):
        parser.error("--test-size and --test-output belong together: pass both or neither")
    write_split(examples, options.output, test_questions, options.test_output)


if __name__ == "__main__":
    run_script(main)
