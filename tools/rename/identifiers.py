"""Rename identifiers by a language server: identifiers.py TREE TABLE.md [--locate] [--apply]

TABLE.md lists `old → new` by file. Needs `pip install basedpyright`. decisions.txt adds to the table
and overrides it. Every reference is collected on the unchanged tree and replaced at once.
"""

import ast
import collections
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

TREE = Path(sys.argv[1]).resolve()
APPLY = "--apply" in sys.argv
SRC = TREE / "src/bridgekd"
HERE = Path(__file__).parent
DEC = HERE / "decisions.txt"  # lines: file<TAB>old<TAB>new ; overrides/extra ; new '=' skip
s = Path(sys.argv[2]).read_text()


def sec(a, b):
    return s[s.index(a) : s.index(b)]


ren = []
for a, b in (("## 8. ", "## 9. "), ("## 10. ", "## 11. ")):
    for f, r in re.findall(r"^\| `(.+?)` \| (.+) \|$", sec(a, b), re.M):
        for part in r.split(" · "):
            m = re.match(r"`([\w.]+)` → (?:`([\w.]+)`|(-))", part)
            if m and m[2]:
                ren.append((f, m[1], m[2]))
for f, r in re.findall(
    r"^\| `((?:tests|benchmarks)/.+?)` \| (.+) \|$", sec("## 9. ", "## 10. "), re.M
):
    for part in r.split(" · "):
        m = re.match(r"`([\w.]+)` → `([\w.]+)`", part)
        if m:
            ren.append((f, m[1], m[2]))
# file moves table: for locating
moves = {}
for o, n in re.findall(r"^\| `([\w/.]+)` \| (.+?) \|", sec("## 7. ", "## 8. "), re.M):
    moves[o] = re.findall(r"`([\w/.]+)`", n)
over = {}
if DEC.exists():
    for line in DEC.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            f, o, n = line.split("\t")
            over[f, o] = n
ren = [(f, o, over.pop((f, o), n)) for f, o, n in ren]
ren += [(f, o, n) for (f, o), n in over.items()]
ren = [(f, o, n) for f, o, n in ren if n != "="]


def defs(path):
    """{qualified name: (line, col)} 0-based, utf-16 ignoring"""
    out = {}
    text = path.read_text()
    lines = text.split("\n")
    tree = ast.parse(text)

    def put(name, line, col):
        out.setdefault(name, (line, col))

    def name_pos(node, name):
        line = node.lineno - 1
        col = lines[line].index(name, node.col_offset)
        return line, col

    def body(nodes, prefix):
        for n in nodes:
            if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                line = n.lineno - 1
                col = re.compile(r"\b(?:def|class)\s+").search(lines[line], n.col_offset).end()
                put(prefix + n.name, line, col)
                if isinstance(n, ast.ClassDef):
                    body(n.body, prefix + n.name + ".")
                elif prefix:
                    for m in ast.walk(n):
                        if isinstance(m, (ast.Assign, ast.AnnAssign)):
                            for t in m.targets if isinstance(m, ast.Assign) else [m.target]:
                                for u in ast.walk(t):
                                    if (
                                        isinstance(u, ast.Attribute)
                                        and isinstance(u.value, ast.Name)
                                        and u.value.id == "self"
                                    ):
                                        put(
                                            prefix + u.attr,
                                            u.end_lineno - 1,
                                            u.end_col_offset - len(u.attr),
                                        )
            elif isinstance(n, (ast.Assign, ast.AnnAssign)):
                for t in n.targets if isinstance(n, ast.Assign) else [n.target]:
                    for u in ast.walk(t):
                        if isinstance(u, ast.Name):
                            put(prefix + u.id, u.lineno - 1, u.col_offset)
            elif isinstance(n, (ast.If, ast.Try, ast.With)):
                body(n.body, prefix)
                body(getattr(n, "orelse", []), prefix)

    body(tree.body, "")
    return out


allfiles = [
    p for d in ("src", "tests", "benchmarks", "tools", "recipes") for p in (TREE / d).rglob("*.py")
]
DEFS = {p: defs(p) for p in allfiles}
byname = collections.defaultdict(list)
for p, d in DEFS.items():
    for q, pos in d.items():
        byname[q].append((p, pos))
claimed = {}


def exact(f, o):
    cands = (
        [TREE / f]
        if f.startswith(("tests/", "benchmarks/"))
        else [SRC / f] + [SRC / x for x in moves.get(f, [])] + [TREE / x for x in moves.get(f, [])]
    )
    for c in cands:
        if c in DEFS and o in DEFS[c]:
            return c, DEFS[c][o]


def fallback(f, o):
    if f.startswith(("tests/", "benchmarks/")):
        return None
    rest = [
        (p, pos)
        for p, pos in byname.get(o, [])
        if (p.is_relative_to(SRC) or p.is_relative_to(TREE / "tools")) and (p, pos) not in claimed
    ]
    return rest[0] if len(rest) == 1 else None


todo = []
missing = []
later = []
for f, o, n in ren:
    at = exact(f, o)
    if at:
        claimed[at] = n
        todo.append((f, o, n, *at))
    else:
        later.append((f, o, n))
for f, o, n in later:
    at = fallback(f, o)
    if at:
        print("CANDIDATE", f, o, n, at[0].relative_to(TREE), sep="\t")
    missing.append((f, o, n))
print(len(ren), "renames", len(todo), "located", len(missing), "missing")
[print("missing", *m, sep="\t") for m in missing if "--locate" in sys.argv]
if "--locate" in sys.argv:
    sys.exit()
# language server
(TREE / "pyrightconfig.json").write_text(
    json.dumps(
        {
            "include": ["src", "tests", "benchmarks", "tools"],
            "venvPath": str(TREE),
            "venv": ".venv",
            "extraPaths": ["src", "tests", "benchmarks"],
            "typeCheckingMode": "off",
            "reportMissingImports": False,
        }
    )
)
env = dict(os.environ)
p = subprocess.Popen(
    ["basedpyright-langserver", "--stdio"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
)
resp = {}
cond = threading.Condition()
nid = 0


def write(o):
    b = json.dumps(o).encode()
    p.stdin.write(b"Content-Length: %d\r\n\r\n" % len(b) + b)
    p.stdin.flush()


def reader():
    while True:
        n = 0
        while True:
            h = p.stdout.readline()
            if not h:
                return
            if h in (b"\r\n", b"\n"):
                break
            if h.lower().startswith(b"content-length"):
                n = int(h.split(b":")[1])
        m = json.loads(p.stdout.read(n))
        if "method" in m and "id" in m:
            r = None
            if m["method"] == "workspace/configuration":
                r = [{} for _ in m["params"]["items"]]
            write({"jsonrpc": "2.0", "id": m["id"], "result": r})
        elif "id" in m:
            with cond:
                resp[m["id"]] = m
                cond.notify_all()


threading.Thread(target=reader, daemon=True).start()


def req(method, params, timeout=600):
    global nid
    nid += 1
    i = nid
    write({"jsonrpc": "2.0", "id": i, "method": method, "params": params})
    with cond:
        cond.wait_for(lambda: i in resp, timeout)
        return resp.pop(i)


uri = lambda q: q.as_uri()
req(
    "initialize",
    {
        "processId": os.getpid(),
        "rootUri": uri(TREE),
        "workspaceFolders": [{"uri": uri(TREE), "name": "t"}],
        "capabilities": {
            "workspace": {"configuration": True, "workspaceEdit": {"documentChanges": False}},
            "textDocument": {"rename": {"prepareSupport": False}},
        },
    },
)
write({"jsonrpc": "2.0", "method": "initialized", "params": {}})
import time

t0 = time.time()
opened = set()


def open_(f):
    if f in opened:
        return
    opened.add(f)
    write(
        {
            "jsonrpc": "2.0",
            "method": "textDocument/didOpen",
            "params": {
                "textDocument": {
                    "uri": uri(f),
                    "languageId": "python",
                    "version": 1,
                    "text": f.read_text(),
                }
            },
        }
    )


edits = collections.defaultdict(dict)
failed = []
from urllib.parse import unquote, urlparse

for q in allfiles:
    open_(q)
time.sleep(2)
r = req(
    "textDocument/references",
    {
        "textDocument": {"uri": uri(todo[0][3])},
        "position": {"line": todo[0][4][0], "character": todo[0][4][1]},
        "context": {"includeDeclaration": True},
    },
)
for k, (f, o, n, path, (line, col)) in enumerate(todo):
    open_(path)
    r = req(
        "textDocument/rename",
        {
            "textDocument": {"uri": uri(path)},
            "position": {"line": line, "character": col},
            "newName": n.rpartition(".")[2],
        },
    )
    res = r.get("result")
    if not res:
        failed.append((f, o, n, str(r.get("error"))[:100]))
        continue
    ch = res.get("changes") or {
        d["textDocument"]["uri"]: d["edits"] for d in res.get("documentChanges", []) if "edits" in d
    }
    for u, es in ch.items():
        q = Path(unquote(urlparse(u).path))
        if not q.is_relative_to(TREE):
            print("outside", q)
            continue
        for e in es:
            a, b = e["range"]["start"], e["range"]["end"]
            key = (a["line"], a["character"], b["line"], b["character"])
            old = edits[q].get(key)
            if old and old[0] != e["newText"]:
                print("CONFLICT", q.relative_to(TREE), key, old, (e["newText"], o))
            edits[q][key] = (e["newText"], o)
    if k % 100 == 99:
        print(k + 1, "of", len(todo), round(time.time() - t0), "s", flush=True)
print("edits", sum(map(len, edits.values())), "files", len(edits), "failed", failed)
p.kill()
(TREE / "pyrightconfig.json").unlink()
if APPLY:
    for q, es in edits.items():
        lines = q.read_text().split("\n")
        for (l, c, l2, c2), (new, o) in sorted(es.items(), reverse=True):
            assert l == l2
            # expect old name at place
            lines[l] = lines[l][:c] + new + lines[l][c2:]
        q.write_text("\n".join(lines))
