"""The default range rule."""

import dataclasses

import keras

from keras_qat.quantizers.range_rule import RangeRule


@keras.saving.register_keras_serializable("keras_qat")
@dataclasses.dataclass(frozen=True)
class Robust(RangeRule):
    """The smallest and the largest value of all samples but outliers.

    Samples whose inputs are far larger than all others are set aside, one in a hundred at most.
    """

    name = "robust"
    sets_outliers_aside = True
