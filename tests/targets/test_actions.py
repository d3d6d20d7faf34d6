"""The advice in actions.toml, applied to models."""

import keras
import pytest

import keras_qat
from keras_qat.lowering import lower_model
from keras_qat.targets import get_target, violations

ACTIVATIONS = {
    # Operators that the Edge TPU lacks. The test follows the advice for each.
    "HARD_SWISH": ("hard_silu", "lookup", "hard_silu", "exact"),
    "LEAKY_RELU": ("leaky_relu", "exact", "leaky_relu", "lookup"),
    "ELU": ("elu", "exact", "elu", "substitute"),
    "GELU": ("gelu", "exact", "gelu", "substitute"),
    "GATHER": ("tanh", "lookup", "tanh", "exact"),
}


@pytest.mark.parametrize("code", ACTIVATIONS)
def test_actions_for_an_activation_make_it_run(code):
    """Uses the Edge TPU, which has the fewest operators."""

    def violated(activation, policy):
        x = keras.Input((8, 8, 4))
        model = keras.Model(x, keras.layers.Activation(activation)(x))
        options = {"activations": policy, "default_ranges_stats": (-4, 4)}
        quantized = keras_qat.quantize_model(model, **options)
        return {
            each.operator: each
            for each in violations(lower_model(quantized), get_target("edgetpu"))
        }

    activation, policy, instead, other_policy = ACTIVATIONS[code]
    advice = violated(activation, policy)[code].action
    named = policy if other_policy == "exact" else other_policy  # the policy is left out, or passed
    assert f'activations="{named}"' in advice
    assert not violated(instead, other_policy)
