"""The range rule of minima and maxima."""

import dataclasses

import keras

from keras_qat.quantizers.range_rule import RangeRule


@keras.saving.register_keras_serializable("keras_qat")
@dataclasses.dataclass(frozen=True)
class MinMax(RangeRule):
    """The smallest and the largest value of all samples, outliers included."""

    name = "minmax"
