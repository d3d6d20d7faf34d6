"""Distiller: trains a quantized model to compute what a float model computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import tree

from keras_qat.errors import InvalidTrainingError
from keras_qat.graph.keras_internals import exclude_from_weight_decay
from keras_qat.layers.core.distillation import mean_of_samples, soft_divergence
from keras_qat.layers.models.wrapped import find_quantized_model


@keras.saving.register_keras_serializable("keras_qat")
class Distiller(keras.Model):
    """Trains a student to have the outputs of a teacher, with or without labels.

    The loss of `compile`, if there is one, compares the student with the labels. The distillation
    loss compares it with the teacher. The sum of both has the weights `1 - distillation_weight` and
    `distillation_weight`. Without labels in `fit`, or without a loss in `compile`, only the second
    counts. Only the student is trained. `distiller.student` is the same model as before, and is
    exported as usual.
    Source: Hinton et al., "Distilling the Knowledge in a Neural Network",
    https://arxiv.org/abs/1503.02531.

    Args:
        student: The model to train, such as one from `quantize_model`.
        teacher: The model that it learns from, with outputs of the same shapes. It is not changed.
        temperature: For `"kl_divergence"`, the number that logits are divided by. A larger one
            gives more weight to the smaller probabilities.
        distillation_weight: The weight of the distillation loss, from 0 to 1.
        distillation_loss: `"kl_divergence"` of the softened probabilities, for classifiers; or a
            loss of Keras or its name, such as `"mse"` for regressions.
        from_logits: For `"kl_divergence"`, whether the outputs are logits instead of probabilities.
        **kwargs: Keyword arguments of `keras.Model`.

    Raises:
        InvalidTrainingError: If the outputs differ in their structure or their shapes, or an
            argument is out of its limits.

    Example:
    >>> import numpy as np
    >>> import keras_qat
    >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    >>> data = np.random.default_rng(0).random((32, 4), "float32")
    >>> student = keras_qat.quantize_model(teacher)
    >>> distiller = Distiller(student, teacher)
    >>> distiller.compile("adam")
    >>> history = distiller.fit(data, verbose=0)
    >>> distiller.student is student
    True
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        *,
        temperature: float = 2.0,
        distillation_weight: float = 0.5,
        distillation_loss: str | Callable[..., Any] = "kl_divergence",
        from_logits: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        _check("temperature", temperature, 1e-3, float("inf"))
        _check("distillation_weight", distillation_weight, 0, 1)
        _check_outputs(student, teacher)
        self.student, self.teacher = student, teacher
        self.temperature, self.distillation_weight = temperature, distillation_weight
        self.distillation_loss, self.from_logits = distillation_loss, from_logits
        self._compare = self._comparison()
        self.built = True

    @property
    def trainable_variables(self):
        """The trainable variables of the student."""
        return self.student.trainable_variables

    @property
    def trainable_weights(self):
        """The trainable weights of the student."""
        return self.student.trainable_weights

    @property
    def non_trainable_variables(self):
        """All other variables, those of the teacher included."""
        trained = {id(variable) for variable in self.trainable_variables}
        return [variable for variable in self.variables if id(variable) not in trained]

    def call(self, inputs, training=None):
        """Computes the student."""
        return self.student(inputs, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the weighted sum of the loss on the labels and the distillation loss."""
        wanted = self.teacher(x, training=False)
        pairs = zip(tree.flatten(wanted), tree.flatten(y_pred), strict=True)
        distilled = sum(self._compare(teacher, own, sample_weight) for teacher, own in pairs)
        if y is None or self.loss is None:
            return distilled + sum(self.losses)
        labelled = super().compute_loss(x, y, y_pred, sample_weight, training=training)
        share = self.distillation_weight
        return (1.0 - share) * labelled + share * distilled

    def make_train_function(self, force=False):
        """Excludes learned ranges of the student from weight decay, then builds the function."""
        student = find_quantized_model(self.student)
        if student is not None and student.learned_ranges:
            exclude_from_weight_decay(self.optimizer, student.learned_ranges)
        return super().make_train_function(force=force)

    def make_test_function(self, force=False):
        """Checks the ranges of the student, then builds the function that `evaluate` runs."""
        self._check_ranges()
        return super().make_test_function(force=force)

    def make_predict_function(self, force=False):
        """Checks the ranges of the student, then builds the function that `predict` runs."""
        self._check_ranges()
        return super().make_predict_function(force=force)

    def get_config(self):
        """Returns the constructor's arguments, both models included."""
        models = {"student": self.student, "teacher": self.teacher}
        loss = self.distillation_loss
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(each) for name, each in models.items()},
            "temperature": self.temperature,
            "distillation_weight": self.distillation_weight,
            "distillation_loss": loss
            if isinstance(loss, str)
            else keras.saving.serialize_keras_object(loss),
            "from_logits": self.from_logits,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the model of a configuration."""
        parts: dict[str, Any] = {
            name: keras.saving.deserialize_keras_object(value, custom_objects)
            if isinstance(value, dict) and "class_name" in value
            else value
            for name, value in config.items()
        }
        return cls(**parts)

    def _comparison(self) -> Callable[[Any, Any, Any], Any]:
        if self.distillation_loss != "kl_divergence":
            loss: Any = keras.losses.get(self.distillation_loss)
            if isinstance(loss, keras.losses.Loss):
                return loss
            return lambda wanted, own, weight: mean_of_samples(loss(wanted, own), weight)
        options = {"temperature": self.temperature, "from_logits": self.from_logits}
        return lambda wanted, own, weight: mean_of_samples(
            soft_divergence(wanted, own, **options), weight
        )

    def _check_ranges(self) -> None:
        student = find_quantized_model(self.student)
        if student is not None:
            student.check_ranges()


def _check(name: str, value: Any, low: float, high: float) -> None:
    if not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidTrainingError(
            "An argument of the `Distiller` is out of its limits.",
            received=f"{name}={value!r}",
            expected=f"{low} <= {name} <= {high}",
            fix=f"Leave `{name}` out, or pass a number within the limits.",
        )


def _check_outputs(student: keras.Model, teacher: keras.Model) -> None:
    shapes = [
        [tuple(tensor.shape[1:]) for tensor in tree.flatten(model.outputs)]
        for model in (student, teacher)
    ]
    if shapes[0] != shapes[1]:
        raise InvalidTrainingError(
            "The student and the teacher have different outputs.",
            received=f"{shapes[0]} of the student, {shapes[1]} of the teacher",
            expected="outputs of the same number and the same shapes",
            fix="Pass the float model that the student was quantized from.",
        )
