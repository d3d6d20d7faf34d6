"""Target profiles: the operators that a target runs, and the check of a model against them."""

from keras_qat.targets.enforcing import check_runs
from keras_qat.targets.judging import Violation, violations
from keras_qat.targets.kernels import kernels_by_output
from keras_qat.targets.limits import Limit, OperatorLimits, Source
from keras_qat.targets.profiles import DEFAULT_TARGET, TARGETS, Target, fast_kernels, get_target
from keras_qat.targets.slow import SlowOperators, slow_operators

__all__ = [
    "DEFAULT_TARGET",
    "TARGETS",
    "Limit",
    "OperatorLimits",
    "SlowOperators",
    "Source",
    "Target",
    "Violation",
    "check_runs",
    "fast_kernels",
    "get_target",
    "kernels_by_output",
    "slow_operators",
    "violations",
]
