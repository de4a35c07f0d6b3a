"""Plain English of the data folder for base models: questions of training splits and general text.

Never a rationale, an answer or a test question: `without_tests` leaves out every text that holds a
test question of any set word for word, and `refuse_tests` stops where one is left. Of the tracking
questions those are left out, too, whose game is asked about in the test file with another player:
34 of its 210 games stand in the published train file.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from importers import RecordedRow, read_json_file, read_mentor_kd, read_palm540b_dss

from bridgekd.errors import InputError
from bridgekd.io.raw_rows import iter_raw_rows
from bridgekd.prompts import render_question
from bridgekd.records import Example

MENTOR = ("tracking_shuffled_objects", "last_letter_concatenation", "svamp", "date_understanding",
          "strategy_qa", "gsm8k", "commonsense_qa")  # fmt: skip
WORD_PROBLEMS = ("addsub", "multiarith", "single_eq", "coin_flip")
_START = 4  # words by which a test question is looked up
_WORD = re.compile(r"\w+")
_GAME = re.compile(r"(?=At the end of the game, \w+ has the)")


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text and the set it is from."""

    source: str
    text: str


def training_texts(data: Path) -> list[Text]:
    """All texts, in the order of the files, each once; none holds a test question."""
    once = {" ".join(_words(t.text)): t for t in reversed(list(_texts(data)))}
    return without_tests(list(reversed(once.values())), questions_of_tests(data))


def questions_of_tests(data: Path) -> list[str]:
    """Every test question there is, by whatever set."""
    found = [q.question for task in MENTOR for q in _mentor(data, task, "test")]
    for name in ("svamp_test", "cqa_test"):
        found += [r.question for r in read_palm540b_dss(data / f"palm540b-dss/{name}.jsonl.gz")]
    found += [row["question"] for _, row in iter_raw_rows(data / "gsm8k/test.jsonl.gz")]
    found += [row["text"] for _, row in iter_raw_rows(data / "banking77/banking_data/test.csv.gz")]
    found += [q for name in WORD_PROBLEMS for q in _of_split(data, name, "test")]
    medical = read_json_file(data / "pubmedqa/data/ori_pqal.json.gz")
    found += [medical[id]["QUESTION"] for id in _medical_test(data)]
    return found


def game_of(question: str) -> str:
    """What is told of a tracking question's game, without who is asked about."""
    return _GAME.split(question)[0]


def games_of_tests(data: Path) -> set[str]:
    """The games of the tracking test file."""
    return {game_of(row.question) for row in _mentor(data, MENTOR[0], "test")}


def without_tests(texts: Sequence[Text], tests: Iterable[str]) -> list[Text]:
    """The texts that hold no test question, however it is cased or punctuated."""
    starts = _by_start(tests)
    return [t for t in texts if not _holds(t.text, starts)]


def refuse_tests(texts: Iterable[str], tests: Iterable[str]) -> None:
    """InputError names the first text that holds a test question."""
    starts = _by_start(tests)
    for text in texts:
        if _holds(text, starts):
            raise InputError(f"a test question stands in {text[:80]!r}; leave that text out")


def _by_start(tests: Iterable[str]) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    starts = defaultdict(list)
    for test in tests:
        words = tuple(_words(test))
        starts[words[:_START]].append(words)
    return starts


def _holds(text: str, starts: dict[tuple[str, ...], list[tuple[str, ...]]]) -> bool:
    words = tuple(_words(text))
    if words in starts.get(words[:_START], ()):
        return True  # however short
    return any(
        words[at : at + len(test)] == test
        for at in range(len(words) - _START + 1)
        for test in starts.get(words[at : at + _START], ())
    )


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _texts(data: Path) -> Iterator[Text]:
    games = games_of_tests(data)
    for task in MENTOR:
        rows = [r for r in _mentor(data, task, "train") if game_of(r.question) not in games]
        yield from (Text(task, _shown(row)) for row in rows)
    palm = data / "palm540b-dss"
    for name in ("cqa_train", "svamp_train"):
        yield from (Text(name, _shown(row)) for row in read_palm540b_dss(palm / f"{name}.jsonl.gz"))
    for _, row in iter_raw_rows(palm / "esnli_train_first10k.csv.gz"):
        yield Text("esnli", f"{row['premise'].strip()} {row['hypothesis'].strip()}")
    for _, row in iter_raw_rows(data / "banking77/banking_data/train.csv.gz"):
        yield Text("banking77", row["text"].strip())
    for name in WORD_PROBLEMS:
        yield from (Text(name, question) for question in _of_split(data, name, "train"))
    aside = _medical_test(data)
    for id, row in read_json_file(data / "pubmedqa/data/ori_pqal.json.gz").items():
        if id not in aside:
            yield from (Text("pubmedqa", text) for text in (*row["CONTEXTS"], row["QUESTION"]))
    for page in read_json_file(data / "tatqa/dataset_raw/tatqa_dataset_dev.json.gz"):
        yield from (Text("tatqa", part["text"]) for part in page["paragraphs"])


def _shown(row: RecordedRow) -> str:
    return render_question(Example("", row.question, None, row.choices))


def _mentor(data: Path, task: str, side: str) -> Iterator[RecordedRow]:
    path = data / f"mentor-kd/data/skeleton/{task}_{side}.json.gz"
    return read_mentor_kd(path)


def _of_split(data: Path, name: str, side: str) -> list[str]:
    folder = data / "reasoning-teacher-tasks"
    rows = read_json_file(folder / f"dataset/{name}.json.gz")
    places = read_json_file(folder / f"data/split/{name}__default.json.gz")[side]
    return [rows[i]["question"].strip() for i in places]


def _medical_test(data: Path) -> set[str]:
    return set(read_json_file(data / "pubmedqa/data/test_ground_truth.json.gz"))
