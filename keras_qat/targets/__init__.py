"""What the places that a file is made for can run: lists of operators, and their check."""

from keras_qat.targets.enforcing import check_runs
from keras_qat.targets.judging import Violation, violations
from keras_qat.targets.limits import Limit, OperatorLimits, Source
from keras_qat.targets.profiles import TARGETS, Target, get_target

__all__ = [
    "TARGETS",
    "Limit",
    "OperatorLimits",
    "Source",
    "Target",
    "Violation",
    "check_runs",
    "get_target",
    "violations",
]
