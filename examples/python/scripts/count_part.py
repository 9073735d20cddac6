"""The tasks in the middle of workflow.py: count the words of one part each."""

import collections
import re


def main(params, context):
    (parts,) = params["upstream_results"].values()
    return dict(collections.Counter(re.findall(r"[a-z]+", parts[params["part"]].lower())))


def add(counters):
    return dict(sum(map(collections.Counter, counters), collections.Counter()))
