"""A task: counts the words of a file. Run in worker processes by the examples, not by hand."""

import collections
import re


def main(params, context):
    with open(params["file"], encoding="utf-8", errors="replace") as file:
        words = re.findall(r"[a-z]+", file.read().lower())
    context.progress(len(words), len(words))
    return {"words": len(words), "top": collections.Counter(words).most_common(params.get("top", 3))}
