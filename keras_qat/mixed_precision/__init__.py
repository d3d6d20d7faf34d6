"""The cost of each layer's quantization, and the choice of widths for a size."""

from keras_qat.mixed_precision.plan import Alternative, BudgetPlan
from keras_qat.mixed_precision.report import LayerSensitivity, SensitivityReport

__all__ = ["Alternative", "BudgetPlan", "LayerSensitivity", "SensitivityReport"]
