"""PubMedQA's labeled questions (`ori_pqal.json`): the abstract and the question, answered yes, no
or maybe. `--test-ids` takes the published split (`test_ground_truth.json`).
"""

from collections.abc import Iterator
from pathlib import Path

from files import (
    make_parser,
    parse_options,
    read_json_file,
    read_test_questions,
    run_script,
    write_split,
)

from bridgekd.records import Example

DECISIONS = ("yes", "no", "maybe")


def read_pubmedqa(path: Path) -> Iterator[Example]:
    """Yield the questions of a file in its order. Models see the question alone, so it contains
    the abstract.
    """
    for id, row in read_json_file(path).items():
        question = "\n".join([*row["CONTEXTS"], f"Question: {row['QUESTION']}"])
        yield Example(id, question, row["final_decision"], DECISIONS)


def main() -> None:
    parser = make_parser(str(__doc__))
    parser.add_argument("--test-ids", type=Path, required=True, help="a JSON file with ids as keys")
    parser.add_argument("--test-output", type=Path, required=True)
    options = parse_options(parser)
    examples = list(read_pubmedqa(options.file))
    test_questions = read_test_questions(examples, options.test_ids)
    write_split(examples, options.output, test_questions, options.test_output)


if __name__ == "__main__":
    run_script(main)
