"""Splits WikiText files into articles, so that an interval can be drawn over articles instead of one long file.

    python split_articles.py train.txt valid.txt test.txt OUT
"""

import json
import re
import sys
from pathlib import Path

TITLE = re.compile(r"^ ?= ([^=].*[^=]) = ?$")


def articles(path):
    """`(title, text)`; a title is a line with one equals sign on each side, between empty lines."""
    title, lines, before = None, [], ""
    for line in path.read_text(encoding="utf-8").split("\n"):
        found = TITLE.match(line)
        if found and not before.strip():
            if title:
                yield title, "\n".join(lines)
            title, lines = found[1], []
        lines.append(line)
        before = line
    if title:
        yield title, "\n".join(lines)


def main():
    *files, out = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    for path in files:
        with (out / path.with_suffix(".jsonl").name).open("w", encoding="utf-8") as file:
            for title, text in articles(path):
                file.write(json.dumps({"article": title, "text": text}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
