"""``python -m miniflow.bench``: miniflow beside what the standard library has, measured in one run.

Times of two runs cannot be compared on a shared machine. So everything that is compared is measured
here in short slices that take turns (A B A B ...), and what counts is the median of the ratios of the
rounds. A target that is missed is reported, and is no error: a benchmark measures.
"""
