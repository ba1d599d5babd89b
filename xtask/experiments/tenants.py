"""Writes requests of many tenants, each with its own intents, label words and answer format.

Usage: python tenants.py OUT --clinc DIR --banking DIR [--seed 1] [--train 600] [--fixed 48] [--valid 8] [--test 32]

DIR holds CLINC150's or Banking77's train.jsonl and test.jsonl, rows {"intent", "text"}. OUT gets train.jsonl,
fixed.jsonl (a fixed set of training tenants, as a real user has), valid.jsonl and test.jsonl with rows
{"tenant", "prompt", "completion", "kind"}, and tenants.json with the conventions of each. The same arguments write the
same bytes. Needs nothing but Python.

The question: can an adapter learn a tenant's conventions from a handful of its answered requests, where the request
alone cannot tell them? A tenant has
- eight intents of one data set (or of both);
- label words: the canonical name, its words with underscores, in reverse, the first word alone, initials with a
  number, the data set's name as a path, or words invented for this tenant;
- an answer format: plain, brackets, quotes, stars, upper case, a prefix, a closing, JSON with one of several keys, XML;
- for half of the tenants, a quotation: the answer also holds words of the request (its first words, its last words, or
  its longest word), so that no former answer can be copied.

Conventions recur among tenants. A tenth of all combinations of label words, format and quotation is held out: the
tenants of valid.jsonl and test.jsonl use only these, with requests that no training tenant has. This set is built for
the question above; it says nothing about other traffic.
"""

import argparse
import json
import random
from pathlib import Path

SYLLABLES = "ka lo mi ne ru ta vi zo be du fa gi po sa te wu".split()
NUM_INTENTS = 8


def initials(intent):
    return "".join(word[0] for word in intent.split("_")) + str(len(intent))


LABELS = {
    "canonical": lambda tenant, intent: intent.replace("_", " "),
    "underscores": lambda tenant, intent: intent,
    "reverse": lambda tenant, intent: " ".join(reversed(intent.split("_"))),
    "first": lambda tenant, intent: intent.split("_")[0],
    "initials": lambda tenant, intent: initials(intent),
    "path": lambda tenant, intent: f"{tenant['source']}/{intent}",
    "invented": lambda tenant, intent: tenant["words"][intent],
}
FORMATS = {
    "plain": "{}",
    "brackets": "[{}]",
    "quotes": '"{}"',
    "stars": "**{}**",
    "upper": "{}",
    "prefix": "Label: {}",
    "closing": "{}. Thank you!",
    "json-intent": '{{"intent": "{}"}}',
    "json-tag": '{{"tag": "{}"}}',
    "xml": "<a>{}</a>",
}
QUOTES = {
    "none": lambda text: "",
    "first words": lambda text: " | " + " ".join(text.split()[:3]),
    "last words": lambda text: " | " + " ".join(text.split()[-3:]),
    "longest word": lambda text: " | " + max(text.split(), key=len),
}


def read(folder, source):
    """`{part: {intent: [text, ..]}}` of one data set."""
    parts = {}
    for part in ("train", "test"):
        for line in (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["intent"] != "oos":
                text = " ".join(row["text"].split())
                parts.setdefault(part, {}).setdefault(row["intent"], []).append(text)
    return source, parts


def answer(tenant, intent, text):
    label = LABELS[tenant["labels"]](tenant, intent)
    if tenant["format"] == "upper":
        label = label.upper()
    return FORMATS[tenant["format"]].format(label) + QUOTES[tenant["quote"]](text)


def make_tenant(name, combination, data, rng):
    source, parts = rng.choice(data)
    labels, form, quote = combination
    intents = rng.sample(sorted(parts["train"]), NUM_INTENTS)
    words = {}
    for intent in intents:
        words[intent] = "".join(rng.choice(SYLLABLES) for _ in range(3))
    return {
        "tenant": name,
        "source": source,
        "labels": labels,
        "format": form,
        "quote": quote,
        "intents": intents,
        "words": words,
    }, parts


def rows_of(tenant, parts, part, num_rows, rng):
    """Requests of the tenant in a random order, none of them twice."""
    pool = [(intent, text) for intent in tenant["intents"] for text in sorted(set(parts[part][intent]))]
    for intent, text in rng.sample(pool, min(num_rows, len(pool))):
        yield {
            "tenant": tenant["tenant"],
            "prompt": f"{text} ->",
            "completion": " " + answer(tenant, intent, text),
            "kind": "quotes" if tenant["quote"] != "none" else "label",
        }


def combinations(rng):
    """Seen and held-out combinations; half of either quote."""
    plain = [(label, form, "none") for label in LABELS for form in FORMATS]
    quoting = [(label, form, quote) for label in LABELS for form in FORMATS for quote in list(QUOTES)[1:]]
    seen, held_out = [], []
    for group in (plain, quoting):
        rng.shuffle(group)
        cut = len(group) // 10
        held_out.append(group[:cut])
        seen.append(group[cut:])
    return seen, held_out


def write(path, tenants):
    with path.open("w", encoding="utf-8") as file:
        for row in tenants:
            file.write(json.dumps(row) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--clinc", type=Path, required=True)
    parser.add_argument("--banking", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", type=int, default=600)
    parser.add_argument("--fixed", type=int, default=48)
    parser.add_argument("--valid", type=int, default=8)
    parser.add_argument("--test", type=int, default=32)
    parser.add_argument("--rows", type=int, default=44, help="requests of a training tenant")
    parser.add_argument("--test-rows", type=int, default=88, help="requests of a valid or test tenant")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    data = [read(options.clinc, "clinc"), read(options.banking, "bank")]
    seen, held_out = combinations(rng)
    options.out.mkdir(parents=True, exist_ok=True)
    described = []
    for part, count, groups, num_rows in [
        ("train", options.train, seen, options.rows),
        ("fixed", options.fixed, seen, options.rows),
        ("valid", options.valid, held_out, options.test_rows),
        ("test", options.test, held_out, options.test_rows),
    ]:
        rows = []
        for idx in range(count):
            combination = rng.choice(groups[idx % 2])
            tenant, parts = make_tenant(f"{part}-{idx}", combination, data, rng)
            described.append({key: tenant[key] for key in ("tenant", "source", "labels", "format", "quote")})
            source = "train" if part in ("train", "fixed") else "test"
            rows += rows_of(tenant, parts, source, num_rows, rng)
        write(options.out / f"{part}.jsonl", rows)
    (options.out / "tenants.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
