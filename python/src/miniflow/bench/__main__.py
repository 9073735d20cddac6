"""The command ``python -m miniflow.bench``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Callable

from . import arrays, calls, crashes, idle, machine, scripts, start
from .measure import QUICK, Plan
from .row import Row

BENCHES: dict[str, Callable[[Plan], list[Row]]] = {
    "script_round_trip": scripts.round_trip,
    "script_rate": scripts.throughput,
    "submit": calls.submit,
    "round_trip": calls.round_trip,
    "map": calls.bulk,
    "array": arrays.arrays,
    "start": start.start,
    "idle": idle.idle,
    "kill": crashes.crashes,
}
_LEAST_ROUNDS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints. 0 also if targets are missed; 1 if something could not be measured."""
    options = _parser().parse_args(argv)
    plan = QUICK if options.quick else Plan()
    if options.rounds is not None:
        plan = dataclasses.replace(plan, rounds=options.rounds)
    # Whoever ends this by SIGTERM gets the same clean end as with Ctrl-C. Not so the peers' workers,
    # which are forked from here and whose pools end them by that signal.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.register_at_fork(after_in_child=_end_by_sigterm)
    words = sys.argv[1:] if argv is None else argv
    facts = machine.machine(["python -m miniflow.bench", *words])
    facts["rounds"] = plan.rounds
    facts["slice_seconds"] = plan.slice
    if not options.json:
        print("\n".join(machine.lines(facts)))
        print(f"  {plan.rounds} rounds, in each a slice of {plan.slice:g} s of every side in turn;")
        print("  medians of the rounds and of their ratios (least..greatest)", flush=True)
    others = machine.Others()
    rows: list[Row] = []
    failures: list[str] = []
    for name in options.only or BENCHES:
        try:
            found = BENCHES[name](plan)
        except Exception:
            failures.append(f"{name}: {traceback.format_exc()}")
            print(f"\n{failures[-1]}", file=sys.stderr, flush=True)
            continue
        rows += found
        if not options.json:
            for row in found:
                print("\n" + "\n".join(row.lines()), flush=True)
    facts["others_percent"] = round(others.percent(), 1)
    if options.json:
        print(
            json.dumps(
                {"machine": facts, "rows": [row.as_json() for row in rows], "failures": failures}, indent=1
            )
        )
    else:
        print(f"\nother programs used {facts['others_percent']:g} % of the machine meanwhile")
        print(_summary(rows, failures))
    return 1 if failures else 0


def _end_by_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _summary(rows: Sequence[Row], failures: Sequence[str]) -> str:
    verdicts = [row.verdict for row in rows]
    parts = [f"{verdicts.count('ok')} ok"]
    for verdict in ("missed", "skipped"):
        names = [row.name for row in rows if row.verdict == verdict]
        if names:
            parts.append(f"{len(names)} {verdict} ({', '.join(names)})")
    if failures:
        parts.append(f"{len(failures)} not measured")
    return ", ".join(parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m miniflow.bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document in place of text")
    parser.add_argument("--only", type=_names, metavar="NAMES", help=f"of {', '.join(BENCHES)}; by commas")
    parser.add_argument(
        "--rounds", type=_rounds, metavar="N", help="how often the sides take turns (default 7)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="only to see that it works: the figures mean nothing"
    )
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in BENCHES:
            raise argparse.ArgumentTypeError(f"no benchmark {name!r}: there are {', '.join(BENCHES)}")
    return names


def _rounds(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if count < _LEAST_ROUNDS:
        raise argparse.ArgumentTypeError(f"at least {_LEAST_ROUNDS}: fewer say nothing")
    return count


if __name__ == "__main__":
    sys.exit(main())
