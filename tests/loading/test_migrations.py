import keras
import pytest

from keras_qat.errors import InvalidFileError
from keras_qat.loading.files.source import Source
from keras_qat.loading.keras2.layers import LayerMaker
from keras_qat.loading.keras2.migrations import MIGRATIONS, RENAMED, migrate


def make(class_name, **config):
    return LayerMaker(Source("old.h5"), lambda config: None).make(class_name, config)


# Class and arguments in Keras 2, and the attributes of Keras 3's layer.
READ = [
    ("DepthwiseConv2D", {"kernel_size": 3, "groups": 1}, {"kernel_size": (3, 3)}),
    ("Conv2DTranspose", {"filters": 2, "kernel_size": 3, "groups": 1}, {"filters": 2}),
    ("SeparableConv2D", {"filters": 2, "kernel_size": 3, "kernel_initializer": "ones"}, {}),
    ("BatchNormalization", {"axis": [3], "fused": True, "renorm": False}, {"axis": 3}),
    ("SyncBatchNormalization", {"axis": [-1]}, {"axis": -1}),
    ("BatchNormalizationV1", {"axis": [1]}, {"axis": 1}),
    ("LayerNormalization", {"axis": [2, 3]}, {"axis": [2, 3]}),
    ("LeakyReLU", {"alpha": 0.25}, {"negative_slope": 0.25}),
    ("LeakyReLU", {"alpha": {"type": "ndarray", "value": 0.5}}, {"negative_slope": 0.5}),
    ("SpatialDropout2D", {"rate": 0.5, "noise_shape": None, "trainable": True}, {"rate": 0.5}),
    ("Embedding", {"input_dim": 4, "output_dim": 2, "input_length": 7}, {"input_dim": 4}),
    ("LSTM", {"units": 3, "implementation": 2, "time_major": False}, {"units": 3}),
    ("UnifiedLSTM", {"units": 3}, {"units": 3}),
    ("Dense", {"units": 2, "batch_input_shape": [None, 4], "dynamic": False}, {"units": 2}),
    ("Dense", {"units": 2, "name": "block1/dense"}, {"name": "block1_dense"}),
    ("Attention", {"causal": False, "use_scale": True}, {"use_scale": True}),
    ("RandomFlip", {"mode": "horizontal", "rng_type": "stateful"}, {"mode": "horizontal"}),
    ("Convolution2D", {"nb_filter": 4, "nb_row": 3, "nb_col": 5}, {"kernel_size": (3, 5)}),
]
POLICY = {"class_name": "Policy", "config": {"name": "mixed_float16"}}
REFUSED = [
    ("DepthwiseConv2D", {"kernel_size": 3, "groups": 2}, "groups"),
    ("BatchNormalization", {"renorm": True}, "renorm"),
    ("BatchNormalization", {"virtual_batch_size": 4}, "virtual_batch_size"),
    ("GRU", {"units": 2, "time_major": True}, "time_major"),
    ("Attention", {"causal": True}, "use_causal_mask"),
    ("RandomCrop", {"height": 4, "width": 4}, "RandomCrop"),
    ("LocallyConnected2D", {"filters": 2, "kernel_size": 3}, "LocallyConnected2D"),
    ("CuDNNLSTM", {"units": 2}, "CuDNNLSTM"),
    ("Dense", {"units": 2, "kernel_initialiser": "ones"}, "kernel_initialiser"),
    ("Dense", {"units": 2, "kernel_initializer": {"class_name": "Mine", "config": {}}}, "Mine"),
]


@pytest.mark.parametrize("class_name, arguments, expected", READ)
def test_migrate_reads_arguments_of_keras_2(class_name, arguments, expected):
    layer = make(class_name, **{"name": "layer", **arguments})
    assert {key: getattr(layer, key) for key in expected} == expected


@pytest.mark.parametrize("class_name, arguments, message", REFUSED)
def test_migrate_refuses_arguments_that_keras_3_lacks(class_name, arguments, message):
    with pytest.raises(InvalidFileError, match=message) as raised:
        make(class_name, name="layer", **arguments)
    assert raised.value.layer == "layer"


@pytest.mark.parametrize(
    "dtype, expected",
    [
        (POLICY, "mixed_float16"),
        ({"class_name": "PolicyV1", "config": {"name": "float32"}}, "float32"),
        ("mixed_float16", "mixed_float16"),
        ("infer", "float32"),
        ("infer_with_float32_vars", "float32"),
        (None, "float32"),
    ],
)
def test_migrate_reads_dtype_policies(dtype, expected):
    assert make("ReLU", name="relu", dtype=dtype).dtype_policy.name == expected


def test_migrate_reads_initializers_of_keras_2():
    config = {"scale": 2.0, "mode": "fan_in", "distribution": "normal", "dtype": "float32"}
    value = {"class_name": "VarianceScaling", "config": config}
    layer = make("Dense", name="dense", units=2, kernel_initializer=value)
    assert layer.kernel_initializer.distribution == "truncated_normal"


def test_migrations_are_of_layers_that_keras_3_has():
    for migration in MIGRATIONS:
        assert migration.reason and migration.since
        for name in migration.classes:
            assert hasattr(keras.layers, name)
    assert all(hasattr(keras.layers, name) for name in RENAMED.values())


def test_migrate_does_not_change_its_arguments():
    config = {"name": "a/b", "alpha": 0.1}
    migrate("LeakyReLU", config)
    assert config == {"name": "a/b", "alpha": 0.1}
