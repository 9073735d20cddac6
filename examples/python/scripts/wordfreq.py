"""A task of `miniflow run`: the words of a text file, and those that make it different from others.

    git ls-files '*.rs' '*.py' '*.md' | sed 's/.*/{"file": "&"}/' > files.jsonl
    miniflow run examples/python/scripts/wordfreq.py --params files.jsonl --param top=5
"""

import collections
import math
import re

# What every text has: words of the language, and of the programming languages.
COMMON = frozenset(
    """a an and are as at be by can do for from has if in is it its no not of on one only or so than
    that the then there this to was what when which with class const crate def else fn impl import let
    match mut none pub return self some str struct use""".split()
)


def main(params, context):
    with open(params["file"], encoding="utf-8") as file:
        text = file.read()
    words = re.findall(r"[a-z]{2,}", text.lower())
    counts = collections.Counter(words)
    telling = ((word, n) for word, n in counts.most_common() if word not in COMMON)
    return {
        "file": params["file"],
        "lines": text.count("\n"),
        "words": len(words),
        "different": len(counts),
        # In bits per word: low for texts that repeat themselves.
        "entropy": round(entropy(counts.values()), 2),
        "top": dict(list(telling)[: params.get("top", 3)]),
    }


def entropy(counts):
    counts = list(counts)
    total = sum(counts)
    return -sum(n / total * math.log2(n / total) for n in counts)
