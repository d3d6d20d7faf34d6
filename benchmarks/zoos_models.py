"""The models of `zoos.py`: small variants of published packages, with random weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class ZooModel:
    """A model of a published package.

    Args:
        package: The name in the package registry.
        family: The architecture. Several packages may have the same one.
        build: The path of a class or function that returns a Keras model or a layer.
        arguments: Keyword arguments of `build`.
        inputs: The shape of one sample of the input. It is needed if `build` returns a layer, or
            a model of unknown input sizes.
        ids: The number of ids that an integer input may have.
    """

    package: str
    family: str
    build: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    inputs: tuple[int, ...] | None = None
    ids: int = 50

    @property
    def name(self) -> str:
        """The package and the name of the builder, which is unique."""
        return f"{self.package}/{self.build.rpartition('.')[2]}"


def models_of(package: str, module: str, common: Mapping[str, Any], rows: str) -> list[ZooModel]:
    """Reads lines of a family and a builder, whose arguments are the same."""
    lines = (line.rpartition(" ") for line in rows.strip().splitlines())
    return [ZooModel(package, family, f"{module}.{name}", common) for family, _, name in lines]


IMAGE = (64, 64, 3)
KIMM = models_of(
    "kimm",
    "kimm.models",
    {"input_shape": IMAGE, "weights": None, "classes": 10},
    """
ConvMixer ConvMixer736D32
ConvNeXt ConvNeXtAtto
DenseNet DenseNet121
EfficientNet EfficientNetB0
EfficientNet-Lite EfficientNetLiteB0
EfficientNetV2 EfficientNetV2B0
GhostNet GhostNetW050
GhostNetV2 GhostNetV2W100
GhostNetV3 GhostNetV3W050
HGNet HGNetTiny
HGNetV2 HGNetV2B0
InceptionNeXt InceptionNeXtTiny
LCNet LCNet035
MobileNetV2 MobileNetV2W050
MobileNetV3 MobileNetV3W050Small
MobileOne MobileOneS0
MobileViT MobileViTXXS
MobileViTV2 MobileViTV2W050
RegNet RegNetX002
RepVGG RepVGGA0
ResNet ResNet18
TinyNet TinyNetE
ViT VisionTransformerTiny32
Xception Xception
""",
)
KYOLO = models_of(
    "kyolo",
    "kyolo",
    {"input_shape": IMAGE, "nc": 5},
    """
YOLOv5 yolov5n
YOLOv8 yolov8n
YOLOv9 yolov9t
YOLOv10 yolov10n
YOLO11 yolo11n
YOLO12 yolo12n
YOLO26 yolo26n
""",
)
_ENCODER = {
    "vocabulary_size": 50,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "max_sequence_length": 12,
}
_DECODER = {
    "vocabulary_size": 50,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
}
_HEADS = {"vocabulary_size": 50, "num_layers": 2, "num_heads": 2, "hidden_dim": 16}
_HUB = "keras_hub.models."


def _hub(family: str, name: str, **arguments: Any) -> ZooModel:
    return ZooModel("keras-hub", family, f"{_HUB}{name}Backbone", arguments)


def _without(arguments: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in names}


HUB_TEXT = [
    _hub("ALBERT", "Albert", **_ENCODER, embedding_dim=8),
    _hub("BART", "Bart", **_ENCODER),
    _hub("BERT", "Bert", **_ENCODER),
    _hub("Bloom", "Bloom", **_HEADS, intermediate_dim=32),
    _hub("DeBERTaV3", "DebertaV3", **_ENCODER, bucket_size=8),
    _hub("DistilBERT", "DistilBert", **_ENCODER),
    _hub(
        "ELECTRA",
        "Electra",
        **_without(_ENCODER, "vocabulary_size"),
        vocab_size=50,
        embedding_dim=8,
    ),
    _hub("ESM", "ESM", **_ENCODER),
    _hub(
        "Falcon",
        "Falcon",
        **_without(_HEADS, "num_heads"),
        num_attention_heads=2,
        intermediate_dim=32,
    ),
    _hub("FNet", "FNet", **_without(_ENCODER, "num_heads")),
    _hub("Gemma", "Gemma", **_DECODER, head_dim=4),
    _hub("GPT-2", "GPT2", **_ENCODER),
    _hub("GPT-NeoX", "GPTNeoX", **_ENCODER),
    _hub("Llama", "Llama", **_DECODER),
    _hub("Mistral", "Mistral", **_DECODER),
    _hub("OPT", "OPT", **_ENCODER),
    _hub("Phi-3", "Phi3", **_DECODER),
    _hub("Qwen", "Qwen", **_DECODER),
    _hub("RoBERTa", "Roberta", **_ENCODER),
    _hub("RoFormerV2", "RoformerV2", **_HEADS, intermediate_dim=32, head_size=8),
    _hub("T5", "T5", **_HEADS, intermediate_dim=32),
    _hub("XLNet", "XLNet", **_HEADS, intermediate_dim=32),
]
_VIT = {"image_shape": (32, 32, 3), "patch_size": 8, "num_layers": 2, "num_heads": 2}
HUB_IMAGES = [
    _hub("ViT", "ViT", **_VIT, hidden_dim=16, mlp_dim=32),
    _hub("DeiT", "DeiT", **_VIT, hidden_dim=16, intermediate_dim=32),
    _hub(
        "DINOv2",
        "DINOV2",
        **_VIT,
        hidden_dim=16,
        intermediate_dim=32,
        position_embedding_shape=(32, 32, 3),
    ),
    _hub(
        "MiT",
        "MiT",
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        image_shape=(32, 32, 3),
        hidden_dims=[8, 16],
    ),
    _hub(
        "Swin",
        "SwinTransformer",
        image_shape=(32, 32, 3),
        embed_dim=8,
        depths=[2, 2],
        num_heads=[1, 2],
        window_size=4,
    ),
    _hub(
        "ResNetV2",
        "ResNet",
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="bottleneck_block",
        use_pre_activation=True,
        image_shape=IMAGE,
    ),
]
_K3IM = {"image_size": 32, "patch_size": 8, "num_classes": 5, "dim": 16, "depth": 2, "heads": 2}
_K3IM_VIT = {**_K3IM, "mlp_dim": 32, "dim_head": 8}


def _k3im(family: str, path: str, **arguments: Any) -> ZooModel:
    return ZooModel("k3im", family, f"k3im.{path}", arguments)


_MIXED = {
    "image_size": 32,
    "patch_size": 8,
    "embedding_dim": 16,
    "num_blocks": 2,
    "dropout_rate": 0.1,
    "num_classes": 5,
}
K3IM = [
    _k3im("ViT", "vit.ViT", **_K3IM_VIT),
    _k3im("SimpleViT", "simple_vit.SimpleViT", **_K3IM_VIT),
    _k3im("SimpleViT with registers", "simple_vit_with_register_tokens.SimpleViT_RT", **_K3IM_VIT),
    _k3im("DeepViT", "deepvit.DeepViT", **_K3IM_VIT),
    _k3im("CaiT", "cait.CaiTModel", **_K3IM_VIT, cls_depth=1),
    _k3im("TokenLearner", "token_learner.ViTokenLearner", **_K3IM_VIT, token_learner_units=4),
    _k3im("gMLP", "gmlp.gMLPModel", **_MIXED),
    _k3im("FNet", "fnet.FNetModel", **_MIXED),
    _k3im(
        "EANet",
        "eanet.EANet",
        input_shape=(32, 32, 3),
        patch_size=8,
        embedding_dim=16,
        num_transformer_blocks=2,
        mlp_dim=16,
        num_heads=2,
        dim_coefficient=2,
        attention_dropout=0.1,
        projection_dropout=0.1,
        num_classes=5,
    ),
    _k3im(
        "CCT",
        "cct.CCT",
        input_shape=(32, 32, 3),
        num_heads=2,
        projection_dim=16,
        kernel_size=3,
        stride=1,
        padding=1,
        transformer_units=[16, 16],
        stochastic_depth_rate=0.1,
        transformer_layers=2,
        num_classes=5,
    ),
    _k3im(
        "ViT for sequences",
        "vit_1d.ViT1DModel",
        seq_len=32,
        patch_size=4,
        num_classes=5,
        dim=16,
        depth=2,
        heads=2,
        mlp_dim=32,
        dim_head=8,
    ),
    _k3im("ConvMixer for sequences", "convmixer_1d.ConvMixer1DModel", filters=16, depth=2),
    _k3im(
        "ConvMixer for video",
        "convmixer_3d.ConvMixer3DModel",
        image_size=12,
        num_frames=6,
        filters=8,
        depth=1,
        kernel_size=3,
        kernel_depth=3,
    ),
    _k3im("FocalNet", "focalnet.focalnet_kid"),
]
