"""How good the recommendations are, measured on conversations that were held back.

`data` reads, `split` parts the past from the answer, `leaks` refuses a split that tells it, `arrays` makes matrices,
`baselines` and `served` score, `metrics` and `statistics` judge, `evaluate` does all methods alike, `report` says it.
See docs/evaluation.md.
"""

from recs.evaluation.arrays import Arrays, arrays_of
from recs.evaluation.data import Dataset, read_dataset
from recs.evaluation.evaluate import Evaluation, baseline_methods, evaluate
from recs.evaluation.leaks import check_leaks
from recs.evaluation.split import Case, Split, leave_last_out, split_at_quantile, split_by_field

__all__ = [
    "Arrays",
    "Case",
    "Dataset",
    "Evaluation",
    "Split",
    "arrays_of",
    "baseline_methods",
    "check_leaks",
    "evaluate",
    "leave_last_out",
    "read_dataset",
    "split_at_quantile",
    "split_by_field",
]
