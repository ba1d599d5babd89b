"""Splits shuffled chunks of texts by their sources, so that no neighbour of a test chunk is trained on.

Usage: python resplit_domains.py DATA OUT [--originals FOLDER] [--seed 7] [--valid 0.1] [--test 0.1]

DATA holds .jsonl files of {"domain": label, "text": chunk}; all are pooled. OUT gets train.jsonl, valid.jsonl and
test.jsonl with one more field, `source`, and split.json with the settings and counts. The same arguments write the
same bytes. Needs scikit-learn.

A split by chunk lets a model train on the paragraph before a test paragraph: it then knows the names, the subject
and, in a book, the very words. Here the sources are recovered, label by label:

1. FOLDER/LABEL/, if there is one, holds the texts that the chunks were cut from, one document a file (.txt, .xml
   with its tags dropped; a file with WikiText headings holds one document for each ` = Title = `). A chunk belongs
   to the document with which it shares most runs of six words, and its place there is known. A label with fewer
   than FEW_ORIGINALS documents (a book) is cut into passages of neighbouring chunks.
2. Chunks are compared by TF-IDF over the words that at most a fifth of the label's chunks hold (names, rare words);
   chunks of one document count as equal. Average linkage, cut at the distance LINKAGE, makes sources of them: alone,
   where the originals are not given; on top of them otherwise, because two documents on one subject are no less
   neighbours.
3. Whole sources go, in a seeded order, to test, then to valid, then to train.
4. What is still near across the split is dropped from the larger side, valid from test's point of view, training from
   that of both: chunks within GAP places in one document, chunks that share a run of eight words which few chunks
   hold, and chunks with a cosine of at least NEAR.

How much the originals matter, measured by the true places: pairs of a held-out and a training chunk that follow one
another are, before, from the text alone, and with the originals: wiki 137, 0, 0; Shakespeare 246, 72, 0; addresses
119, 77, 0; Genesis in five languages 478, 174, 0. The text alone is enough for articles, not for books and speeches.

What this does not do: passages of one book share its characters and style (Genesis is one book), documents of one
author share his, and a passage held out in one language may be trained on in another.

Originals used: WikiText-2 train (wiki), the genesis, shakespeare, state_union and inaugural packages of nltk_data
(lang_*, drama, politics), the MedQuAD folders (medical), the conversations of Topical-Chat as one text each
(dialogue). GSM8K, HumanEval and TinyStories chunks hold whole problems and stories, so need none.
"""

import argparse
import json
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.feature_extraction.text import TfidfVectorizer

LINKAGE = 0.94
NEAR = 0.4
GAP = 2
RUN_TO_MATCH = 6
RUN_TO_COMPARE = 8
# A run of eight words in more chunks than this is a formula ("once upon a time ..."), not a shared source.
FORMULA = 4
FEW_ORIGINALS = 5
NUM_PASSAGES = 20
SPLITS = ("train", "valid", "test")


def words_of(text):
    return re.findall(r"\w+", text.lower())


def runs_of(text, length):
    words = words_of(text)
    return [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]


def read_chunks(folder):
    """{label: [(split, text)]} of all .jsonl files of a folder, in the order of their names and lines."""
    chunks = defaultdict(list)
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            chunks[row["domain"]].append((path.stem, row["text"]))
    return dict(sorted(chunks.items()))


def read_originals(folder):
    """[(name, text)] of all documents below a folder, or nothing if there is no such folder."""
    documents = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        raw = path.read_bytes()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        if path.suffix == ".xml":
            text = re.sub(r"<[^>]+>", " ", text)
        name = path.relative_to(folder).with_suffix("").as_posix()
        articles = re.split(r"(?m)^(?= = [^=\n]+ = *$)", text)
        if len(articles) > 1:
            documents += [(f"{name}-{index:03}", article) for index, article in enumerate(articles)]
        else:
            documents.append((name, text))
    return documents


def locate(texts, documents):
    """(document index, word position) of every text, or None where no run of words is found in one document only."""
    places = {}
    for document_idx, (_, document) in enumerate(documents):
        for position, run in enumerate(runs_of(document, RUN_TO_MATCH)):
            places.setdefault(run, []).append((document_idx, position))
    found = []
    for text in texts:
        hits = [places[run][0] for run in runs_of(text, RUN_TO_MATCH) if len(places.get(run, [])) == 1]
        if not hits:
            found.append(None)
            continue
        counts = Counter(document_idx for document_idx, _ in hits)
        document_idx = max(sorted(counts), key=counts.__getitem__)
        positions = [position for of_document, position in hits if of_document == document_idx]
        found.append((document_idx, int(np.median(positions))))
    return found


def ranks(places):
    """(document index, rank of the chunk among those of its document); what neighbours are is a matter of ranks."""
    of_document = defaultdict(list)
    for chunk_idx, place in enumerate(places):
        if place is not None:
            of_document[place[0]].append((place[1], chunk_idx))
    ranked = [None] * len(places)
    for document_idx, chunks in of_document.items():
        for rank, (_, chunk_idx) in enumerate(sorted(chunks)):
            ranked[chunk_idx] = (document_idx, rank)
    return ranked


def groups_of_originals(ranked):
    """What counts as one original: the document, or a passage of it if there are few."""
    sizes = Counter(place[0] for place in ranked if place is not None)
    if len(sizes) >= FEW_ORIGINALS:
        return [None if place is None else place[0] for place in ranked]
    return [
        None if place is None else (place[0], place[1] * NUM_PASSAGES // sizes[place[0]]) for place in ranked
    ]


def similarities(texts):
    """Cosines [chunks, chunks] of TF-IDF vectors of rare words; 0 on the diagonal."""
    vectorizer = TfidfVectorizer(token_pattern=r"\w\w+", sublinear_tf=True, min_df=2, max_df=0.2)
    vectors = vectorizer.fit_transform(texts)
    cosines = (vectors @ vectors.T).toarray()
    np.fill_diagonal(cosines, 0.0)
    return cosines


def shared_runs(texts):
    """Pairs of chunks that share a run of words, unless it is a formula."""
    holders = defaultdict(set)
    for chunk_idx, text in enumerate(texts):
        for run in runs_of(text, RUN_TO_COMPARE):
            holders[run].add(chunk_idx)
    few = (sorted(chunks) for chunks in holders.values() if 2 <= len(chunks) <= FORMULA)
    return {(one, other) for chunks in few for one in chunks for other in chunks if one < other}


def agglomerate(cosines, originals):
    """A source index for every chunk: average linkage over cosines, chunks of one original being equal."""
    distances = 1.0 - cosines
    of_original = defaultdict(list)
    for chunk_idx, original in enumerate(originals):
        if original is not None:
            of_original[original].append(chunk_idx)
    for chunks in of_original.values():
        distances[np.ix_(chunks, chunks)] = 0.0
    np.fill_diagonal(distances, 0.0)
    if len(distances) < 2:
        return [0] * len(distances)
    tree = linkage(squareform(distances.clip(0.0), checks=False), "average")
    clusters = fcluster(tree, LINKAGE, "distance")
    # Numbered by first appearance, so that the names do not depend on the library's order.
    first = {}
    return [first.setdefault(cluster, len(first)) for cluster in clusters]


def assign(sources, fractions, rng):
    """{source: split}: whole sources, seeded; one that overshoots its share by half is left for training."""
    sizes = Counter(sources)
    order = sorted(sizes)
    rng.shuffle(order)
    splits = {}
    for split in ("test", "valid"):
        wanted = fractions[split] * len(sources)
        filled = 0
        for source in order:
            if source not in splits and filled < wanted and filled + sizes[source] <= 1.5 * wanted:
                splits[source] = split
                filled += sizes[source]
    return {source: splits.get(source, "train") for source in order}


def near_pairs(cosines, runs, ranked):
    """A symmetric mask [chunks, chunks] of what may not lie on both sides of a split, and its three reasons."""
    close = cosines >= NEAR
    words = np.zeros_like(close)
    for one, other in runs:
        words[one, other] = words[other, one] = True
    beside = np.zeros_like(close)
    for one, place in enumerate(ranked):
        for other, other_place in enumerate(ranked):
            if one != other and place is not None and other_place is not None and place[0] == other_place[0]:
                beside[one, other] = abs(place[1] - other_place[1]) <= GAP
    return {"cosine": close, "shared words": words, "same place": beside}


def drop_near(splits, near):
    """Takes chunks out of the split (None) until no near pair is across: valid against test, train against both."""
    splits = list(splits)
    any_reason = np.logical_or.reduce(list(near.values()))
    for split, protected in (("valid", {"test"}), ("train", {"valid", "test"})):
        held = np.array([other in protected for other in splits])
        for chunk_idx, own in enumerate(splits):
            if own == split and (any_reason[chunk_idx] & held).any():
                splits[chunk_idx] = None
    return splits


def across(splits, mask):
    """How many pairs of a mask have one chunk in train and one in test or valid, or one in valid and one in test."""
    names = np.array([str(split) for split in splits])
    count = 0
    for one, other in (("train", "test"), ("train", "valid"), ("valid", "test")):
        count += int(mask[np.ix_(names == one, names == other)].sum())
    return count


def mean_best(splits, cosines):
    """Mean over test chunks of the highest cosine to a training chunk."""
    names = np.array([str(split) for split in splits])
    block = cosines[np.ix_(names == "test", names == "train")]
    return float(block.max(axis=1).mean()) if block.size else 0.0


def resplit(label, chunks, documents, fractions, seed):
    """The rows of each split of one label, and what there is to say about it."""
    texts = [text for _, text in chunks]
    ranked = ranks(locate(texts, documents)) if documents else [None] * len(texts)
    cosines = similarities(texts)
    sources = agglomerate(cosines, groups_of_originals(ranked))
    assigned = assign(sources, fractions, random.Random(f"{seed}/{label}"))
    near = near_pairs(cosines, shared_runs(texts), ranked)
    by_source = [assigned[source] for source in sources]
    splits = drop_near(by_source, near)
    before = [split for split, _ in chunks]
    rows = {split: [] for split in SPLITS}
    for (_, text), split, source in zip(chunks, splits, sources):
        if split is not None:
            rows[split].append({"domain": label, "source": f"{label}-{source:03}", "text": text})
    counts = Counter(splits)
    report = {
        "chunks": len(texts),
        "located": sum(place is not None for place in ranked),
        "sources": len(set(sources)),
        **{split: counts[split] for split in SPLITS},
        "test sources": len({row["source"] for row in rows["test"]}),
        "dropped": counts[None],
    }
    for reason, mask in near.items():
        report[f"{reason}, before"] = across(before, mask)
        report[f"{reason}, by source"] = across(by_source, mask)
        report[f"{reason}, after"] = across(splits, mask)
    report["best cosine, before"] = round(mean_best(before, cosines), 3)
    report["best cosine, after"] = round(mean_best(splits, cosines), 3)
    return rows, report


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--originals", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--valid", type=float, default=0.1)
    parser.add_argument("--test", type=float, default=0.1)
    arguments = parser.parse_args()
    fractions = {"valid": arguments.valid, "test": arguments.test}
    rows = {split: [] for split in SPLITS}
    reports = {}
    for label, chunks in read_chunks(arguments.data).items():
        folder = arguments.originals and arguments.originals / label
        documents = read_originals(folder) if folder and folder.is_dir() else []
        of_label, reports[label] = resplit(label, chunks, documents, fractions, arguments.seed)
        for split in SPLITS:
            rows[split] += of_label[split]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        random.Random(f"{arguments.seed}/{split}").shuffle(rows[split])
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[split])
        (arguments.out / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    settings = {"seed": arguments.seed, **fractions, "linkage": LINKAGE, "near": NEAR, "gap": GAP}
    summary = json.dumps({"settings": settings, "labels": reports}, indent=1)
    (arguments.out / "split.json").write_text(summary + "\n", encoding="utf-8")
    columns = list(next(iter(reports.values())))
    print("label", *columns, sep="\t")
    for label, report in reports.items():
        print(label, *report.values(), sep="\t")
    totals = [sum(report[column] for report in reports.values()) for column in columns]
    print("all", *(round(total, 3) if isinstance(total, int) else "" for total in totals), sep="\t")


if __name__ == "__main__":
    main()
