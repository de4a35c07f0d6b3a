"""Names: one thing, one name; functions start with a verb; no word that only we understand."""

import ast
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

import bridgekd

ROOT = Path(bridgekd.__file__).parent
TREES = {path: ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}
VERBS = frozenset(
    re.findall(
        r"\w+",
        """
        get find read parse load list iter count match compute estimate evaluate score
        measure compare rank sample sum average normalize round scale test forecast build
        make create init generate copy clone define derive convert to format render plot
        draw print describe label select choose pick sort group split merge join concat
        collect gather filter drop fold flatten shuffle slice align batch cut trim
        truncate pad pack add append set update replace remove delete clear reset insert
        increment apply cast encode decode escape strip fill map wrap unwrap write save
        store dump export import open close send receive upload download fetch request
        query call submit publish run start stop begin end finish execute process handle
        train fit predict tokenize embed annotate teach solve plan schedule wait retry
        poll sleep resume flush commit sync lock release reserve settle acquire free
        refund check validate verify ensure raise refuse reject ignore skip is has can
        needs should supports ask show notify report record track log hash index infer
        resolve detect extract summarize explain suggest translate redact simulate step
        take use try keep hold buy charge cancel register enter exit return yield visit
        walk move
        """,
    )
)
RETIRED = frozenset(
    re.findall(
        r"\w+",
        """
    told tell said asked bought lesson lessons apprentice tutor tutored anew mend mended nobody
    likest elsewhere learnt beforehand dearer throttled recalled
    """,
    )
)
BRITISH = re.compile(
    r"\b(?:\w*(?:labell|centr(?:ed|ing)|normalis|colour|licence|optimis|grey|serialis|tokenis|"
    r"initialis|behaviour|favour|summaris|recognis|organis)\w*)\b",
    re.IGNORECASE,
)
GERUNDS = {
    "early_stopping", "continuous_batching", "clustering", "packing", "ranking", "billing",
    "grading",
}  # fmt: skip
# one protocol on three layers: in this process, on a server, whichever of the two
PROTOCOL = {
    "generate_texts", "sample_texts", "score_examples", "estimate_confidence", "score_targets",
}  # fmt: skip


def split_words(name):
    """`getHTTPName`, `get_name` -> lower-case words."""
    return [w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def iter_functions():
    """(path, function node, is it a property, what holds it); nested functions are left out."""
    for path, tree in TREES.items():
        holders = [tree, *(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef))]
        for holder in holders:
            for node in holder.body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    marks = {getattr(d, "id", getattr(d, "attr", "")) for d in node.decorator_list}
                    yield path, node, bool(marks & {"property", "cached_property"}), holder


def list_identifiers(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.end_lineno
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg, node.value.lineno


def measure_verb_share():
    names = [
        node.name
        for _, node, is_property, _ in iter_functions()
        if not is_property and not node.name.startswith("__")
    ]
    with_verb = [n for n in names if (split_words(n) or [""])[0] in VERBS]
    return len(with_verb) / len(names)


def test_most_functions_start_with_a_verb():
    assert measure_verb_share() >= 0.6


def test_no_class_name_is_defined_twice():
    names = Counter(
        n.name for tree in TREES.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)
    )
    allowed = {"Options"}  # the options model of a variant, private to its file
    assert [n for n, k in names.items() if k > 1 and n.lstrip("_") not in allowed] == []


def test_no_public_function_name_is_defined_twice():
    places = defaultdict(list)
    for path, node, _, holder in iter_functions():
        if isinstance(holder, ast.Module) and not node.name.startswith("_"):
            places[node.name].append(str(path.relative_to(ROOT)))
    variants = {"rank", "compute", "build", "open_transport", "compute_loss", "main"}
    wrong = {
        name: where
        for name, where in places.items()
        if len(where) > 1 and name not in PROTOCOL | variants
    }
    assert not wrong


def test_no_module_name_is_used_twice():
    names = Counter(p.stem for p in TREES if p.stem not in ("__init__", "__main__"))
    # the same thing on two layers, or the options, the variant and the command of one thing
    doubles = {name for name, k in names.items() if k > 1}
    assert doubles <= SAME_ON_TWO_LAYERS, doubles - SAME_ON_TWO_LAYERS


SAME_ON_TWO_LAYERS = {
    "generate", "export", "ledger", "teacher", "pilot", "purchases", "verify", "budget", "live",
    "alm", "uld",
}  # fmt: skip


def test_no_identifier_has_a_retired_word():
    wrong = sorted(
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path, tree in TREES.items()
        for name, line in set(list_identifiers(tree))
        if RETIRED & set(split_words(name))
        or ("mentor" in split_words(name) and "mentor_kd" not in name and "MentorKD" not in name)
    )
    assert not wrong, f"{len(wrong)}: {wrong[:40]}"


def test_no_module_has_a_standard_library_name():
    names = {p.stem for p in TREES} | {p.parent.name for p in TREES}
    allowed = {"io", "__init__", "__main__", "cost"}
    assert (names - allowed) & set(sys.stdlib_module_names) == set()


def test_no_file_name_is_a_gerund():
    names = {p.stem for p in TREES} | {p.parent.name for p in TREES}
    assert {n for n in names if n.endswith("ing") and n not in GERUNDS | {"ing"}} == set()


def test_no_exported_name_is_a_submodule():
    modules = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or p.is_dir()}
    assert set(bridgekd.__all__) & modules == set()


def test_the_spelling_is_american():
    wrong = [
        f"{path.relative_to(ROOT)}:{number} {match[0]}"
        for path in ROOT.rglob("*")
        if path.suffix in (".py", ".html", ".md", ".yaml")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for match in BRITISH.finditer(line.replace("aria-labelledby", ""))
    ]
    assert not wrong, f"{len(wrong)}: {wrong[:40]}"


def test_manifests_are_read_by_type():
    text = {path: path.read_text() for path in TREES}
    wrong = [
        str(path.relative_to(ROOT))
        for path, code in text.items()
        if re.search(r"manifest\[|\.inputs\[\d|manifest\.get\(", code)
    ]
    assert not wrong


def test_no_dict_is_untyped():
    n_untyped = sum(path.read_text().count("dict[str, Any]") for path in TREES)
    assert n_untyped == 0
