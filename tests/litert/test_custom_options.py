"""The options of custom operators, and operands that the kernel of a detector does not check."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

import keras_qat
from keras_qat.errors import LiteRTFormatError
from keras_qat.litert import Model, Operator, Runner, Tensor, read, to_bytes
from keras_qat.litert.reading.file_operators import file_operators
from tests.litert import foreign

CODE = "CUSTOM(TFLite_Detection_PostProcess)"
OPTIONS = {
    "max_detections": 5,
    "max_classes_per_detection": 1,
    "nms_score_threshold": 0.25,
    "nms_iou_threshold": 0.5,
    "num_classes": 3,
    "use_regular_nms": True,
    "y_scale": 1.0,
    "x_scale": 1.0,
    "h_scale": 1.0,
    "w_scale": 1.0,
}


def detector(boxes=(1, 7, 4), scores=(1, 7, 3), anchors=(7, 4), dtype="float32", **options):
    """Makes a file of the operator alone."""
    ends = [Tensor("b", boxes, dtype), Tensor("s", scores, "float32")]
    data = Tensor("anchors", anchors, "float32", data=np.full(anchors, 0.5, "float32"))
    shapes = (1, 5, 4), (1, 5), (1, 5), (1,)
    outputs = [Tensor(f"y{i}", shape, "float32") for i, shape in enumerate(shapes)]
    operator = Operator(CODE, (*ends, data), tuple(outputs), 1, {**OPTIONS, **options})
    names = [x.name for x in outputs]
    model = Model({x.name: x for x in ends}, dict(zip(names, outputs, strict=True)), (operator,))
    return to_bytes(model)


def test_custom_options_are_read_as_they_were_written():
    (operator,) = file_operators(read(detector()))
    assert operator.code == CODE and operator.options == OPTIONS
    assert keras_qat.inspect_litert(detector()).operators[0].options == OPTIONS


def with_options(content):
    def change(table):
        table.subgraphs[0].operators[0].customOptions = list(content)

    return foreign.repacked(detector(), change)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0",
        b"\xff" * 40,
        bytes(flexbuffers.Dumps([1, 2])),
        bytes(flexbuffers.Dumps({"num_classes": "three"})),
        bytes(flexbuffers.Dumps({"num_classes": [3]})),
    ],
    ids=["none", "short", "types", "vector", "text", "list"],
)
def test_custom_options_that_cannot_be_read_are_damage(content):
    for use in (keras_qat.inspect_litert, Runner):
        with pytest.raises(LiteRTFormatError, match=r"\.custom_options: no FlexBuffers map"):
            use(with_options(content))


def test_custom_options_with_flipped_bytes_are_read_or_refused():
    """No byte of the options makes the reader raise another error."""
    own = bytes(flexbuffers.Dumps(OPTIONS))
    random = np.random.default_rng(0)
    for _ in range(200):
        content = bytearray(own)
        for place in random.integers(0, len(own), 2):
            content[place] = random.integers(0, 256)
        try:
            report = keras_qat.inspect_litert(with_options(content))
            assert set(report.operators[0].options) <= set(OPTIONS)
        except LiteRTFormatError:
            pass


def test_runner_runs_a_detector_of_floats():
    runner = Runner(detector())
    arrays = np.zeros((1, 7, 4), "float32"), np.full((1, 7, 3), 0.3, "float32")
    *_, scores, count = runner.run(arrays)
    assert scores[0, :3].tolist() == [np.float32(0.3)] * 3  # a box of each class
    assert count.tolist() == [3]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"anchors": (6, 4)}, r"boxes have shape \[1, 7, 4\], and its anchors \[6, 4\]"),
        ({"anchors": (7, 3)}, r"its anchors \[7, 3\]"),
        ({"boxes": (1, 8, 4)}, r"its boxes have shape"),
        ({"boxes": (1, 7, 3)}, r"its boxes have shape"),
        ({"boxes": (7, 4)}, r"its boxes have shape"),
        ({"boxes": (2, 7, 4), "scores": (2, 7, 3)}, r"its boxes have shape"),
        ({"scores": (1, 7, 5)}, r"it has 3 classes"),
        ({"num_classes": 4}, r"it has 4 classes"),
        ({"num_classes": -1}, r"its options are"),
        ({"max_detections": -5}, r"its options are"),
        ({"max_detections": 2**30}, r"its options are"),
        ({"max_detections": 2**12, "max_classes_per_detection": 2**12}, r"its options are"),
        ({"detections_per_class": 0}, r"its options are"),
        ({"dtype": "int8"}, r"no kernel for inputs of types \['int8', 'float32'\]"),
        ({"dtype": "uint8"}, r"its anchors are float32, and its boxes uint8"),
    ],
)
def test_runner_refuses_a_detector_whose_kernel_would_leave_its_tensors(wrong, message):
    with pytest.raises(LiteRTFormatError, match=message):
        Runner(detector(**wrong))


def test_custom_operators_of_other_tools_have_no_known_options():
    code = schema.OperatorCodeT(
        builtinCode=schema.BuiltinOperator.CUSTOM, customCode="Mine", version=1
    )
    tensors = [foreign.tensor("x", (1, 4)), foreign.tensor("y", (1, 4))]
    options = {"customOptions": list(flexbuffers.Dumps({"num_classes": 3}))}
    content = foreign.one_operator(code, tensors, (0,), (1,), **options)
    assert keras_qat.inspect_litert(content).operators[0].options == {}
    (operator,) = file_operators(read(content))
    assert operator.options == {}
