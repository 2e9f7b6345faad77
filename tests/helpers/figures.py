"""Measured figures on the pages, and the stored runs that they come from.

    python tests/helpers/figures.py

writes all of them again from benchmarks/results. tests/data/figures.json lists them:

- "tables": program of benchmarks/ -> the page that has its marks, and its JSON. With
  ":" and a word after it, another run of the same program.
- "measured": a text on a page with a {} for each figure, and the source of each:
  `file`, `path` in it, `format`. Steps of a path are keys, places in a list,
  `key=value` for the entry of a list that has it, or `*` for all, of which `reduce`
  makes one number. `over` is a path to divide by, `minus` one to subtract, `scale` a
  factor.
- "constants": figures that no stored run has, and the reason.
"""

import importlib
import json
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
LIST = json.loads((ROOT / "tests/data/figures.json").read_text())
PAGES = ["README.md", "tutorials/README.md", "benchmarks/README.md"]
PAGES += sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("docs/*.md"))
PAGES += ["docs/answers.tex"]
# Times, ratios, shares, sizes, rates; and accuracies, 0.9107.
FIGURE = re.compile(
    r"(?<![\w.,])(?:\d[\d,]*(?:\.\d+)?"
    r"(?:x\b|\s?%|\s(?:s|ms|us|seconds?|minutes?|times|points)\b"
    r"|\s(?:GB(?:/s)?|MB|[KM]iB|GFLOP/s)\b)|0\.\d{3,}\b)"
)
TABLE = re.compile(r"<!-- \S+ writes from here -->.*?<!-- to here -->", re.S)
REDUCE = {"mean": statistics.mean, "min": min, "max": max}


def read(page):
    return (ROOT / page).read_text()


def follow(found, path):
    """The numbers at a path of a JSON value."""
    if not path:
        return [found]
    step, *rest = path
    if step == "*":
        chosen = found.values() if isinstance(found, dict) else found
    elif "=" in step:
        key, value = step.split("=")
        chosen = [entry for entry in found if str(entry[key]) == value]
    else:
        chosen = [found[int(step) if isinstance(found, list) else step]]
    return [number for entry in chosen for number in follow(entry, rest)]


def figure(source):
    """A figure in words, from its source in figures.json."""
    results = json.loads((RESULTS / source["file"]).read_text())

    def number(path):
        numbers = follow(results, path.split("/"))
        if "reduce" in source:
            return REDUCE[source["reduce"]](numbers)
        (only,) = numbers
        return only

    value = number(source["path"])
    if "over" in source:
        value /= number(source["over"])
    if "minus" in source:
        value -= number(source["minus"])
    return format(value * source.get("scale", 1), source["format"])


def place(entry):
    """Matches the text of an entry with any figures; a group per part between them."""
    parts = map(re.escape, entry["text"].split("{}"))
    return re.compile("(" + r")[\d,.]*\d(".join(parts).replace("\\ ", r"\s+") + ")")


def renewed(entry, text):
    """The text of a page with the figures of an entry, and how often it has them."""
    right = [*map(figure, entry["sources"]), ""]

    def words(match):
        return "".join(map(str.__add__, match.groups(), right))

    return place(entry).subn(words, text)


def tables():
    """(program, page, report of the stored run) of each table that has one."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    found = []
    for program, (page, file) in LIST["tables"].items():
        if (RESULTS / file).exists():
            path = program.partition(":")[0].removesuffix(".py")
            module = importlib.import_module(path.replace("/", "."))
            results = json.loads((RESULTS / file).read_text())
            found.append((program, page, module.report(results)))
    sys.path.remove(str(ROOT / "benchmarks"))
    return found


def unlisted(page):
    """Figures of a page outside of the tables of programs and of measured texts."""
    text = TABLE.sub("", read(page))
    for entry in LIST["measured"]:
        if entry["page"] == page:
            text = place(entry).sub(lambda match: "...".join(match.groups()), text)
    return {" ".join(found.split()) for found in FIGURE.findall(text)}


def main():
    for program, page, text in tables():
        write = importlib.import_module("harness").write_markdown
        write(text, ROOT / page, program)
    for entry in LIST["measured"]:
        text, count = renewed(entry, read(entry["page"]))
        if count != 1:
            raise SystemExit(f"{entry['page']} has {count} times: {entry['text']}")
        (ROOT / entry["page"]).write_text(text)


if __name__ == "__main__":
    main()
