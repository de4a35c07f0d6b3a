"""Rename recipe keys inside strings, YAML and Markdown: keys.py TREE"""

import io
import re
import sys
import tokenize
from pathlib import Path

T = Path(sys.argv[1])
K = {
    "data": {
        "fields": "columns",
        "answer_kind": "answer_type",
        "unlabelled": "unlabeled",
        "validation": "validation_size",
    },
    "teacher": {
        "concurrency": "max_concurrent_requests",
        "requests_per_minute": "max_requests_per_minute",
        "tokens_per_minute": "max_tokens_per_minute",
        "expected_tokens": "expected_completion_tokens",
        "token_parameter": "max_tokens_field",
        "max_tries": "max_attempts",
    },
    "prompt": {"examples": "few_shot"},
    "budget": {"accepted": "accepted_rationales"},
    "assistant": {
        "warm_up": "warm_up_size",
        "backend": "generation_backend",
        "scoring": "scoring_backend",
    },
    "server": {
        "concurrency": "max_concurrent_requests",
        "start_timeout_s": "startup_timeout_s",
        "max_tries": "max_attempts",
    },
    "student": {
        "instruct": "instruction_data",
        "instruct_train": "instruction_train",
        "form": "target_format",
    },
    "train": {
        "schedule": "lr_scheduler_type",
        "evaluations": "n_evaluations",
        "patience": "early_stopping_patience",
        "held_out": "holdout_size",
        "too_long": "on_overflow",
    },
    "select": {"space": "embedding_transform", "encoder": "embedding_model", "rounds": "n_rounds"},
    "check": {"keep": "filter"},
    "annotate": {"keep": "filter", "samples": "n_samples"},
    "confidence": {"how": "measure", "at_least": "threshold", "keep_share": "keep_fraction"},
    "evaluate": {"steps": "step_checker"},
}
K["warm_up_train"] = K["instruction_train"] = K["instruct_train"] = K["train"]
# keys that are safe as `key: ` anywhere inside a string or YAML
SAFE = {}
for sec, d in K.items():
    for o, n in d.items():
        SAFE.setdefault(o, n)
for x in ("examples", "accepted", "steps", "samples", "keep", "how", "backend", "form"):
    SAFE.pop(x, None)
SAFE |= {"hard_limit_usd": "hard_limit_usd"}
VALUES = [
    (r'\bform(:\s*|": "|=)two_task', r"target_format\1multi_task"),
    (r'target_format(:\s*|": "|=)two_task', r"target_format\1multi_task"),
    (r'on_overflow(:\s*|": "|=)cut\b', r"on_overflow\1truncate_prompt"),
    (r'embedding_transform(:\s*|": "|=)raw\b', r"embedding_transform\1none"),
    (r'embedding_transform(:\s*|": "|=)centred\b', r"embedding_transform\1center"),
    (r'embedding_transform(:\s*|": "|=)whitened\b', r"embedding_transform\1whiten"),
    (r'\bkeep(: ?|": "|=)(correct|confident|all|consistent)\b', r"filter\1\2"),
    (r'filter(: ?|": "|=)consistent\b', r"filter\1self_consistent"),
    (r'\bhow(: ?|": "|=)(p_true|likelihood)', r"measure\1\2"),
    (r'\bbackend(: ?|": ")(server|transformers)', r"generation_backend\1\2"),
    (r"\bform(: ?)(joint)", r"target_format\1\2"),
    (r"(?<!inference_)\bsteps(: ?)sandbox", r"step_checker\1sandbox"),
]


def fix(t):
    o = t
    for sec, d in K.items():
        for a, b in d.items():
            t = re.sub(rf"(?<![\w.])((?:\w+\.)*{sec}\.){a}\b(?!\()", rf"\g<1>{b}", t)
    t = re.sub(r"\bhard_stop_usd\b", "hard_limit_usd", t)
    for a, b in SAFE.items():
        t = re.sub(rf"(?<![\w.]){a}(: |:\n|=(?=\w))", rf"{b}\1", t)
    for a, b in VALUES:
        t = re.sub(a, b, t)
    t = re.sub(r"(prompt: \{[^}\n]*|prompt:\n(?:\s+\w+:.*\n)*?\s+)examples:", r"\1few_shot:", t)
    t = re.sub(r"(budget: \{[^}\n]*?)accepted:", r"\1accepted_rationales:", t)
    t = re.sub(r"(annotate: \{[^}\n]*?)samples:", r"\1n_samples:", t)
    return t


def fix_py(p):
    s = p.read_text()
    out = []
    last = 0
    lines = s.splitlines(keepends=True)
    off = [0]
    for l in lines:
        off.append(off[-1] + len(l))
    for tok in tokenize.generate_tokens(io.StringIO(s).readline):
        if tok.type == tokenize.STRING or tokenize.tok_name[tok.type] == "FSTRING_MIDDLE":
            a = off[tok.start[0] - 1] + tok.start[1]
            b = off[tok.end[0] - 1] + tok.end[1]
            out.append(s[last:a])
            out.append(fix(s[a:b]))
            last = b
    out.append(s[last:])
    n = "".join(out)
    if n != s:
        p.write_text(n)


for p in T.rglob("*"):
    if ".git" in p.parts or ".venv" in p.parts or not p.is_file():
        continue
    if p.suffix == ".py" and p.name != "test_names.py":
        fix_py(p)
    elif (p.suffix in (".yaml", ".yml") and "prices" not in p.name) or (
        p.suffix == ".md" and p.name != "log.md"
    ):
        s = p.read_text()
        n = fix(s)
        n != s and p.write_text(n)
