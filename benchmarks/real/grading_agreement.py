"""How often the graders agree with the correctness flags of recorded answers, set by set.

    BRIDGEKD_DATA=FOLDER python benchmarks/real/grading_agreement.py [--show 20] [--set NAME]
        [--math-verify] [--gold]

The flags are those of Mentor-KD's assistants and zero-shot test outputs, of PaLM 540B, of GPT-3 on
GSM8K, of six OpenAI models in three prompt styles (Faithful CoT), of ZeroEval, of MMLU-Pro, and of
a committee of teachers on SVAMP (its flag: the last number is the gold answer). Those of Mentor-
KD's training files are all true by construction and are not used. A flag can be wrong: `--show`
prints the disagreements; docs/experiments.md says who is right in each class.

`--gold` reads gold answers instead: how many of a set are one number to `answer_type: number`, how
many others `math` keeps, and how many numbers math-verify, which shares no code with the package,
reads as something else.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from importers import RecordedRow, read_json_file, read_mentor_kd, read_palm540b_dss

from bridgekd.grading.answer_type import AnswerType, load_answer_type
from bridgekd.io.row_files import read_jsonl
from bridgekd.stats.intervals import wilson_interval
from bridgekd.variants import VariantSettings

ReadRows = Callable[[Path], Iterator[RecordedRow]]
Set = tuple[str, str, Callable[[], Iterator[RecordedRow]]]  # name, type of answer, its rows
MENTOR = {
    "date_understanding": "multiple_choice",
    "tracking_shuffled_objects": "multiple_choice",
    "last_letter_concatenation": "text",
    "svamp": "number",
    "strategy_qa": "label",
}
PALM = {
    "cqa_train": "multiple_choice",
    "cqa_test": "multiple_choice",
    "svamp_train": "number",
    "svamp_test": "number",
    "esnli_valid": "multiple_choice",
    "esnli_test": "multiple_choice",
}
FAITHFUL_COT = {
    "gsm8k": "number",
    "svamp": "number",
    "aqua": "multiple_choice",
    "strategyqa": "label",
    "date": "text",
    "sports": "label",
}
GPT3 = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def list_sets(data: Path) -> Iterator[Set]:
    """Every recorded set with flags of its own that is there."""
    for task, kind in MENTOR.items():
        for folder in ("t5_large", "flan-t5_large"):
            path = data / f"mentor-kd/data/aug/{folder}/{task}_rand3_aug3.json.gz"
            if path.is_file():
                yield f"{folder} {task}", kind, reader(path, read_mentor_kd)
        path = data / f"mentor-kd/data/main/{task}_test.json.gz"
        if path.is_file() and task != "svamp":  # no answers recorded there
            yield f"zero-shot {task}", kind, reader(path, read_mentor_kd)
    for name, kind in PALM.items():
        path = data / f"palm540b-dss/{name}.jsonl.gz"
        yield f"PaLM {name}", kind, reader(path, read_palm540b_dss)
    for model in GPT3:
        path = data / "gsm8k/example_model_solutions.jsonl.gz"
        yield (
            f"GPT-3 {model} gsm8k",
            "number",
            lambda path=path, model=model: _read_gpt3(path, model),
        )
    for name, kind in FAITHFUL_COT.items():
        path = data / f"faithful-cot/predictions/{name}.jsonl.gz"
        for style in ("standard", "cot", "least_to_most"):  # nl_and_code is run, not read
            yield f"Faithful CoT {style} {name}", kind, _reader(_read_predictions, path, style)
    for name in ("gsm8k", "math_l5"):
        path = data / f"zeroeval-math/predictions/{name}.jsonl.gz"
        yield f"ZeroEval {name}", "number", _reader(_read_predictions, path, None)
    for name in ("medical", "legal", "financial"):
        path = data / f"mmlu-pro-cot/predictions/{name}.jsonl.gz"
        yield f"MMLU-Pro {name}", "multiple_choice", _reader(_read_predictions, path, None)
    path = data / "committee-svamp/data/Llama-2-7b-chat-hf_svamp_rationale_round0.json.gz"
    yield "Committee svamp", "number", reader(path, _read_committee)


def _reader(
    read: Callable[[Path, str | None], Iterator[RecordedRow]], path: Path, style: str | None
) -> Callable[[], Iterator[RecordedRow]]:
    return lambda: read(path, style)


def _read_predictions(path: Path, style: str | None) -> Iterator[RecordedRow]:
    """The rows of a consolidated file; an answer from a JSON object is put into one again."""
    for _, row in read_jsonl(path):
        if style not in (None, row["style"]):
            continue
        text, gold = row["text"], row["gold"]
        if row.get("parsed") in ("json", "regex"):
            text = json.dumps({"reasoning": text, "answer": row["answer"]})
        choices = tuple(row.get("options", ()))
        if not choices and path.name.startswith("aqua"):
            choices = tuple("ABCDE")
        if choices and choices != tuple("ABCDE"):
            gold = choices["ABCDEFGHIJ".index(gold)]
        yield RecordedRow(row["question"], gold, choices, text, 0, row["correct"])


def _read_committee(path: Path) -> Iterator[RecordedRow]:
    for row in read_json_file(path):
        for teacher in ("gpt", "gemini", "mistral"):
            text = row[f"{teacher}_rationale"][0]
            numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
            last = numbers[-1].replace(",", "") if numbers else ""
            right = bool(last) and float(last) == float(row["gold_answer"])
            yield RecordedRow(row["question"], row["gold_answer"], (), text, 0, right)


def reader(path: Path, read: ReadRows) -> Callable[[], Iterator[RecordedRow]]:
    return lambda: read(path)


def _read_gpt3(path: Path, model: str) -> Iterator[RecordedRow]:
    for _, row in read_jsonl(path):
        gold = row["ground_truth"].rpartition("A: ")[2]
        solved = row[model]
        yield RecordedRow(row["question"], gold, (), solved["solution"], 0, solved["is_correct"])


GOLD = {
    **{
        f"long-tail-kd/dataset/math/{name}.jsonl.gz": column
        for name, column in (
            ("corpus", "label"),
            ("test_corpus", "label"),
            ("math_chatgpt_cot_train_composed", "gt_choice"),
            ("math_chatgpt_cot_train_composed_raw", "gt_choice"),
        )
    },
    "zeroeval-math/predictions/gsm8k.jsonl.gz": "gold",
    "zeroeval-math/predictions/math_l5.jsonl.gz": "gold",
    **{
        f"reasoning-teacher-tasks/dataset/{name}.json.gz": "answer"
        for name in ("addsub", "multiarith", "single_eq", "svamp", "gsm8k_test_only")
    },
}


def _read_gold(path: Path, column: str) -> list[tuple[str, str]]:
    """The questions of a file with their gold answers."""
    is_lines = path.name.endswith(".jsonl.gz")
    rows = [row for _, row in read_jsonl(path)] if is_lines else read_json_file(path)
    rows = rows["data"] if isinstance(rows, dict) else rows
    pairs = ((str(row.get("question") or row["text"]), str(row[column])) for row in rows)
    return list(dict.fromkeys(pairs))


def _read_with_math_verify(gold: str) -> Any:
    """What math-verify reads: a number, an expression, a set, or None."""
    from math_verify import parse
    from sympy import Eq

    plain = re.sub(r",?\\!", "", gold).strip('" $').rstrip(".").replace("\\%", "%")
    plain = plain.removeprefix(r"\(").removesuffix(r"\)").removesuffix("%")
    plain = re.sub(r"^\\(?:text|mathbf)\{(.*)\}$", r"\1", plain)
    found = parse(f"${plain}$")
    value = found[0] if found else None
    return value.rhs if isinstance(value, Eq) else value


def _is_same_value(number: str, other: Any) -> bool:
    """Whether two numbers are equal to 15 digits."""
    from sympy import Rational

    try:
        return abs(float(other / Rational(number)) - 1) < 1e-15 if number != "0" else other == 0
    except (TypeError, ValueError):
        return False


def print_gold(data: Path) -> None:
    """Prints how the gold answers of every set are read."""
    number, math = (load_answer_type(VariantSettings(name=name)) for name in ("number", "math"))
    print("| set | gold answers | one number | kept by `math` | refused | read otherwise |")
    print("|---|---|---|---|---|---|")
    for file, column in GOLD.items():
        pairs = _read_gold(data / file, column)
        numbers = [(q, gold) for q, gold in pairs if number.is_gold(gold)]
        others = [gold for _, gold in pairs if not number.is_gold(gold)]
        n_kept = sum(math.is_gold(gold) for gold in others)
        apart = []
        for question, gold in numbers:
            read, other = number.canonicalize(gold), _read_with_math_verify(gold)
            is_list = "," in gold and "separated by commas" in question
            if not _is_same_value(read, other) or is_list:
                apart.append(f"{gold!r}: {read}, not {other}{' (a list)' * is_list}")
        cells = (file, len(pairs), len(numbers), n_kept, len(others) - n_kept, len(apart))
        print(f"| {' | '.join(map(str, cells))} |", *apart, sep="\n    ", flush=True)


def read_with_bridgekd(row: RecordedRow, answer_type: AnswerType) -> bool:
    """Right or wrong by the package's own graders."""
    answer = answer_type.extract_answer(row.text or "", row.choices)
    return answer_type.is_correct(answer, row.answer, row.choices)


def read_with_math_verify_file(row: RecordedRow, answer_type: AnswerType) -> bool:
    """Right or wrong by math-verify, given the text behind the mark where there is one."""
    from math_verify import parse, verify

    return bool(verify(parse(row.answer), parse(row.text or "")))


def print_table(
    name: str, answer_type: AnswerType, pairs: list[tuple[RecordedRow, bool]], n_show: int
) -> None:
    """Prints a set's row of the table, and some of its disagreements."""
    apart = [(row, graded) for row, graded in pairs if graded != row.flag]
    n, n_agree = len(pairs), len(pairs) - len(apart)
    low, high = wilson_interval(n_agree, n)
    flagged, right = sum(bool(r.flag) for r, _ in pairs), sum(g for _, g in pairs)
    agree = f"{n_agree / n:.2%} ({low:.1%} to {high:.1%})"
    row_type = answer_type.settings.name
    cells = (name, row_type, n, flagged, right, agree, len(apart))
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    for row, graded in apart[:n_show]:
        read = answer_type.extract_answer(row.text or "", row.choices)
        print(f"    flag {row.flag}, graded {graded}, gold {row.answer!r}, read {read!r}")
        print(f"        {row.choices} ...{(row.text or '')[-160:]!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--show", type=int, default=0, help="disagreements to print for each set")
    parser.add_argument("--set", default="", help="only sets whose name holds this")
    parser.add_argument("--math-verify", action="store_true", help="instead; number sets only")
    parser.add_argument("--gold", action="store_true", help="read gold answers instead")
    args = parser.parse_args()
    if "BRIDGEKD_DATA" not in os.environ:
        sys.exit("BRIDGEKD_DATA names no folder of recorded answers; set it")
    if args.gold:
        return print_gold(Path(os.environ["BRIDGEKD_DATA"]))
    grade = read_with_math_verify_file if args.math_verify else read_with_bridgekd
    print("| set | type | n | flagged right | graded right | agree | apart |")
    print("|---|---|---|---|---|---|---|")
    for name, kind, rows in list_sets(Path(os.environ["BRIDGEKD_DATA"])):
        if args.set in name and (kind == "number" or not args.math_verify):
            answer_type = load_answer_type(VariantSettings(name=kind))
            flagged = [row for row in rows() if row.flag is not None]
            answer_type = answer_type.with_labels(row.answer for row in flagged)
            pairs = [(row, grade(row, answer_type)) for row in flagged]
            print_table(name, answer_type, pairs, args.show)


if __name__ == "__main__":
    main()
