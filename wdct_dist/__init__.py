"""wdct_dist: a distributed evaluator for the Words and Deeds Consistency Test (arXiv 2503.07003).

Read `pipeline.py` first: it tells the whole program in a few functions.
"""

__version__ = "0.1.0"
