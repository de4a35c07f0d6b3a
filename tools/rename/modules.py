"""Move modules and rewrite imports and mentions: modules.py TREE TABLE.md [--dry]"""

import re
import subprocess
import sys
from pathlib import Path

T = Path(sys.argv[1]).resolve()
DRY = "--dry" in sys.argv
S = T / "src/bridgekd"
s = Path(sys.argv[2]).read_text()


def sec(a, b):
    return s[s.index(a) : s.index(b)]


m = {}
for o, n in re.findall(r"^\| `([\w/.]+)` \| (.+?) \|", sec("## 7. ", "## 8. "), re.M):
    new = re.findall(r"`([\w/.]+)`", n)
    if new:
        m[o] = new[0]
# decisions for splits and folders
m.update(
    {
        l.split("\t")[0]: l.split("\t")[1]
        for l in (Path(__file__).parent / "moves.txt").read_text().splitlines()
        if "\t" in l
    }
)
tests = dict(re.findall(r"^\| `(\w+)` \| `([\w/]+)` \|$", sec("## 9. ", "| old benchmark"), re.M))
bench = dict(
    re.findall(
        r"^\| `([\w/]+)` \| `([\w/]+)` \|$", sec("| old benchmark", "| file | helper names"), re.M
    )
)
for op, np_ in (
    ("edges", "io"),
    ("config", "recipe"),
    ("exporting", "exports"),
    ("served", "inference_server"),
):
    for a in (S / op).rglob("*"):
        if a.is_file() and "__pycache__" not in a.parts:
            r = str(a.relative_to(S))
            m.setdefault(r, np_ + r[len(op) :])
            if m[r] == "-":
                m[r] = np_ + r[len(op) :]
pairs = []  # absolute old, new
for o, n in m.items():
    if n == "-":
        continue
    a = S / o
    b = T / n if n.startswith("tools/") else S / n
    if a.exists() and a != b:
        if b.exists():
            print("EXISTS", o, "->", n)
            continue
        pairs.append((a, b))
for o, n in tests.items():
    a, b = T / f"tests/{o}.py", T / f"tests/{n}.py"
    if a.exists() and not b.exists():
        pairs.append((a, b))
for o, n in bench.items():
    a, b = T / f"benchmarks/{o}.py", T / f"benchmarks/{n}.py"
    if a.exists() and not b.exists():
        pairs.append((a, b))


def mod(p):
    r = p.relative_to(T).with_suffix("").parts
    if r[0] == "src" or r[0] == "tests" or r[0] == "benchmarks":
        r = r[1:]
    r = [x for x in r if x != "__init__"]
    return ".".join(r)


print(len(pairs), "moves")
for a, b in pairs:
    print("  ", a.relative_to(T), "->", b.relative_to(T))
left = [p for p in S.rglob("*.py") if p not in {a for a, _ in pairs}]
if DRY:
    sys.exit()


def git(*a):
    subprocess.run(["git", "-C", str(T), *a], check=True)


modmap = {mod(a): mod(b) for a, b in pairs if a.suffix == ".py" and a.is_relative_to(S)}
pkgmap = {}
for a, b in pairs:
    if a.name == "__init__.py":
        pkgmap[mod(a)] = mod(b)
for a, b in pairs:
    b.parent.mkdir(parents=True, exist_ok=True)
    git("mv", str(a.relative_to(T)), str(b.relative_to(T)))
for d in {b.parent for _, b in pairs if b.is_relative_to(S)}:
    if not (d / "__init__.py").exists():
        (d / "__init__.py").write_text('"""%s."""\n' % d.name.replace("_", " ").capitalize())
allm = {**modmap}
files = [
    p
    for p in T.rglob("*")
    if p.suffix in (".py", ".md", ".toml", ".yaml", ".yml", ".html", ".ipynb")
    or p.name in ("Makefile", "run")
]
files = [p for p in files if ".git" not in p.parts and ".venv" not in p.parts and p.is_file()]
order = sorted(allm, key=len, reverse=True)
rx = re.compile(r"\b(" + "|".join(re.escape(x) for x in order) + r")\b(?!\.py)")
pathmap = {
    str(a.relative_to(S)): str(b.relative_to(S)) if b.is_relative_to(S) else str(b.relative_to(T))
    for a, b in pairs
    if a.is_relative_to(S)
}
prx = re.compile(
    r"(?<![\w/])((?:src/bridgekd/)?)("
    + "|".join(re.escape(x) for x in sorted(pathmap, key=len, reverse=True))
    + r")(?!\w)"
)
# from bridgekd.pkg import submodule[, ...]
parentmods = {}
for o, n in allm.items():
    op, _, ob = o.rpartition(".")
    np_, _, nb = n.rpartition(".")
    parentmods.setdefault(op, {})[ob] = (np_, nb)


def fix_from(text):
    swaps = []

    def rep(mt):
        ind, pkg, names = mt[1], mt[2], mt[3]
        if pkg not in parentmods:
            return mt[0]
        items = [x.strip() for x in names.strip("()").replace("\n", " ").split(",") if x.strip()]
        out = {}
        for it in items:
            nm, _, al = it.partition(" as ")
            if nm in parentmods[pkg]:
                np_, nb = parentmods[pkg][nm]
                alias = al
                (al or nm == nb) or swaps.append((nm, nb))
                out.setdefault(np_, []).append(
                    nb + (f" as {alias}" if alias and alias != nb else "")
                )
            else:
                out.setdefault(pkg, []).append(it)
        if not any((it.partition(" as ")[0]) in parentmods[pkg] for it in items):
            return mt[0]
        return "\n".join(
            f"{ind}from {p.replace('bridgekd', chr(1), 1)} import {', '.join(v)}"
            for p, v in out.items()
        )

    text = re.sub(
        r"^([ \t]*)from (bridgekd[\w.]*) import (\([^)]*\)|[^\n(]+)$", rep, text, flags=re.M
    )
    for nm, nb in set(swaps):
        text = re.sub(rf'(?<![\w."\'/]){nm}\.(?=[A-Za-z_])', f"{nb}.", text)
    return text


testmap = {a.stem: b for a, b in pairs if a.is_relative_to(T / "tests")}
for p in files:
    t = p.read_text()
    o = t
    if p.suffix == ".py":
        t = fix_from(t)
    t = rx.sub(lambda k: allm[k[1]].replace("bridgekd", chr(1), 1), t)
    t = prx.sub(lambda k: k[1] + pathmap[k[2]], t)
    for a, b in testmap.items():
        rel = str(b.relative_to(T / "tests").with_suffix("")).replace("/", ".")
        if p.suffix == ".py":
            t = re.sub(rf"^(\s*)from {a} import", rf"\1from {rel} import", t, flags=re.M)
            t = re.sub(rf"^(\s*)import {a}$", rf"\1import {rel}", t, flags=re.M)
        t = re.sub(rf"tests/{a}\.py", f"tests/{rel.replace('.', '/')}.py", t)
    t = t.replace(chr(1), "bridgekd")
    if t != o:
        p.write_text(t)
for d in sorted((x for x in S.rglob("*") if x.is_dir()), key=lambda x: -len(x.parts)):
    left = [x for x in d.iterdir() if x.name != "__pycache__"]
    if not left or (
        len(left) == 1
        and left[0].name == "__init__.py"
        and len(left[0].read_text()) < 200
        and d.name in ("core", "edges", "config", "served", "exporting", "settings")
    ):
        for x in left:
            git("rm", "-qf", str(x.relative_to(T)))
