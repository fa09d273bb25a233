"""Scores the estimator against measured cases: `python -m tests.accuracy FILE... --out REPORT`."""
