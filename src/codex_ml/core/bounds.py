"""The upper bounds of whole numbers in params.yaml and in the options of commands.

Each bound is above what is known to make sense, so that a slip of the keyboard is refused before any work, and so that
no number leaves the integers of a library. Whether a smaller number fits this machine is for `modeling.memory_need` to
say. Lists and texts need none of their own: params.yaml has at most 256 KiB and 50,000 values (`core.yaml`). Those that
multiply a cost have one at their field.

Used by: the sections of params.yaml, the options of commands.
"""

from __future__ import annotations

MOST_STEPS = 10**9  # the longest published runs have some 10^7 optimizer steps
MOST_ROWS = 2**16  # per forward pass; a GPU of 141 GB has room for some 10^4 rows of a tiny model
MOST_STEP_ROWS = 2**20  # per optimizer step; their ids are in memory at once. Published steps have up to 10^5
MOST_TOKENS = 2**24  # of a row, a text or a vocabulary: the longest published context has 10 million tokens
MOST_ITEMS = 10**6  # documents, texts or windows that are measured: intervals shrink with the root of their number
MOST_RECORDS = 10**9  # of a corpus, which no smaller bound needs: a loop over them ends with the corpus
MOST_SAMPLES = 10_000  # programs per task; published pass@k go to k = 1000
MOST_KEPT = 1000  # copies of a checkpoint, weights or a log, each of which takes disk space
LONGEST_BYTES = 2**30  # of a document or a line: a text is in memory as a whole, and Arrow's columns hold 2 GiB
# The largest published models have 18,432 numbers per token, 128 heads and 126 layers; DeepNet has 1,000 layers
# (Wang et al. 2022, arXiv:2203.00555).
WIDEST, WIDEST_INNER, MOST_LAYERS, MOST_HEADS = 2**16, 2**18, 1024, 1024
MOST_THREADS = 1024  # above the cores of nearly all machines
# The audit ranks a canary among at most 10,000 secrets that were never planted; all planted copies are part of train.
MOST_CANARIES, MOST_PLANTED = 10_000, 10**6
MOST_FOLDS = 1000
