"""A functional model whose outputs have the names of the outputs of the source model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import keras

from keras_qat.errors import KerasQatError, NewerVersionError, original_error
from keras_qat.graph import read_model
from keras_qat.version import __version__


@keras.saving.register_keras_serializable("keras_qat")
class RewrittenModel(keras.Model):
    """A functional model, as `keras_qat.clone_model` returns it.

    Keras names outputs after the layers that make them, and rewriting changes these layers: for
    example, a sigmoid becomes an operator after its dense layer. The old names are kept, so that
    `compile(loss={"name": ...})` does not change.

    Args:
        *args: `inputs` and `outputs` of `keras.Model`.
        **kwargs: Keyword arguments of `keras.Model`.

    Attributes:
        rewrite_log: The rewrites that were applied; empty for a model that was loaded.
        origins: The layers of the user's model that each layer computes, by the layer's name; empty
            for a model that was loaded.
        kept_weights: Names of the layers that have the weights of the user's layers of the same
            names; None for a model that was loaded.
    """

    rewrite_log: tuple = ()
    origins: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    kept_weights: frozenset[str] | None = None

    # Keras recognizes a functional constructor by exactly these two names.
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.dtype_policy = "float32"  # like the layers: no loss is scaled
        graph = read_model(self)
        # Layers store the names, since Keras keeps layers when it saves or clones a model.
        makers = (graph.nodes[edge.node].head for edge in graph.output_edges)
        self.output_names = [getattr(each, "output_name", None) or each.name for each in makers]

    def __call__(self, *args, **kwargs):
        """Calls the model as Keras does. Raised errors keep their parts, not only their text."""
        try:
            return super().__call__(*args, **kwargs)
        except KerasQatError as error:
            found = original_error(error)
        raise found

    def get_config(self):
        """Returns the functional configuration, and the version of the package that wrote it."""
        return {**super().get_config(), "keras_qat_version": __version__}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the model from a configuration.

        Raises:
            NewerVersionError: If a later major version of the package wrote the configuration.
        """
        config = dict(config)
        written = str(config.pop("keras_qat_version", __version__))
        if _major(written) > _major(__version__):
            raise NewerVersionError(
                "The model was saved by a later major version of keras_qat.",
                layer=config.get("name"),
                received=f"a model of keras_qat {written}",
                expected=f"one of keras_qat {__version__} or earlier",
                fix=f"pip install --upgrade 'keras_qat>={_major(written)}'",
            )
        return super().from_config(config, custom_objects=custom_objects)


# Keras writes the class name without its package into `.h5`.
keras.saving.get_custom_objects()["RewrittenModel"] = RewrittenModel


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdecimal() else 0
