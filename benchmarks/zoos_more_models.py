"""The rest of the models of `zoos.py`."""

from __future__ import annotations

from typing import Any

from zoos_models import HUB_IMAGES, HUB_TEXT, IMAGE, K3IM, KIMM, KYOLO, ZooModel, models_of

_ZERO = "zeromodels.models."


def _zero(family: str, path: str, **arguments: Any) -> ZooModel:
    arguments = {"image_size": 64, "num_classes": 5, **arguments}
    return ZooModel("zeromodels", family, f"{_ZERO}{path}ImageClassify", arguments)


_TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2}
ZEROMODELS = [
    _zero(
        "BEiT",
        "beit.Beit",
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    ),
    _zero("CaiT", "cait.CaiT", **_TINY),
    _zero(
        "ConvNeXtV2", "convnextv2.ConvNeXtV2", depths=(1, 1, 2, 1), projection_dim=(8, 16, 24, 32)
    ),
    _zero("DeiT", "deit.DeiT", **_TINY, use_distillation=True),
    _zero(
        "EfficientFormer",
        "efficientformer.EfficientFormer",
        depths=(1, 1, 2, 2),
        embed_dim=(8, 16, 24, 32),
    ),
    _zero("FlexiViT", "flexivit.FlexiViT", **_TINY),
    _zero("InceptionV4", "inceptionv4.InceptionV4", image_size=96),
    _zero(
        "LeViT",
        "levit.Levit",
        hidden_sizes=(16, 24, 32),
        num_attention_heads=(1, 2, 2),
        depths=(1, 1, 1),
        key_dim=(8, 8, 8),
    ),
    _zero(
        "MaxViT",
        "maxvit.MaxViT",
        stem_width=8,
        depths=(1, 1, 1, 1),
        embed_dim=(8, 16, 24, 32),
        num_heads=(1, 2, 2, 2),
        window_size=2,
    ),
    _zero("MLP-Mixer", "mlp_mixer.MLPMixer", embed_dim=16, depths=2),
    _zero("MobileNetV4", "mobilenetv4.MobileNetV4"),
    _zero("MobileViTV2", "mobilevitv2.MobileViTV2", multiplier=0.5),
    _zero(
        "PiT",
        "pit.PiT",
        patch_size=8,
        stride=4,
        embed_dim=(8, 16, 32),
        depth=(1, 1, 1),
        heads=(1, 2, 2),
    ),
    _zero("PoolFormer", "poolformer.PoolFormer", embed_dim=(8, 16, 24, 32), depths=(1, 1, 1, 1)),
    _zero(
        "PVT",
        "pvt.Pvt",
        hidden_sizes=(8, 16, 24, 32),
        depths=(1, 1, 1, 1),
        num_attention_heads=(1, 2, 3, 4),
    ),
    _zero(
        "PVTv2",
        "pvt_v2.PvtV2",
        hidden_sizes=(8, 16, 24, 32),
        depths=(1, 1, 1, 1),
        num_attention_heads=(1, 2, 3, 4),
    ),
    _zero("Res2Net", "res2net.Res2Net", depth=(1, 1, 1, 1)),
    _zero("ResMLP", "resmlp.ResMLP", embed_dim=16, depth=2),
    _zero("SENet", "senet.SENet", depths=(1, 1, 1, 1)),
    _zero("SwinV2", "swinv2.SwinV2", window_size=4, embed_dim=8, depths=(2, 2), num_heads=(1, 2)),
    _zero("MiT", "mit.MiT", embed_dim=(8, 16, 40, 64), depths=(1, 1, 1, 1)),
]
SEGMODELS = models_of(
    "segmodels-keras",
    "segmodels_keras",
    {"backbone_name": "mobilenetv2", "input_shape": IMAGE, "encoder_weights": None},
    """
U-Net Unet
FPN FPN
LinkNet Linknet
""",
)
SEGMODELS.append(
    ZooModel(
        "segmodels-keras",
        "PSPNet",
        "segmodels_keras.PSPNet",
        {"backbone_name": "mobilenetv2", "input_shape": (96, 96, 3), "encoder_weights": None},
    )
)
_MEDICAI = {"input_shape": IMAGE, "num_classes": 3}
MEDICAI = [
    *models_of(
        "medicai",
        "medicai.models",
        _MEDICAI,
        """
ConvNeXtV2 ConvNeXtV2Atto
ResNet ResNet18
SE-ResNet SEResNet18
""",
    ),
    *models_of(
        "medicai",
        "medicai.models",
        {**_MEDICAI, "encoder_name": "resnet18"},
        """
U-Net UNet
U-Net++ UNetPlusPlus
Attention U-Net AttentionUNet
DeepLabV3+ DeepLabV3Plus
UPerNet UPerNet
""",
    ),
    ZooModel(
        "medicai",
        "SegFormer",
        "medicai.models.SegFormer",
        {**_MEDICAI, "encoder_name": "mit_b0"},
    ),
    ZooModel(
        "medicai",
        "TransUNet",
        "medicai.models.TransUNet",
        {
            **_MEDICAI,
            "encoder_name": "resnet18",
            "num_vit_layers": 1,
            "num_queries": 8,
            "embed_dim": 32,
            "mlp_dim": 32,
        },
    ),
]
_SERIES = {"seq_len": 32, "pred_len": 8, "num_channels": 3}
CLIMATE = [
    ZooModel("keras-climate", family, f"keras_climate.{path}", arguments)
    for family, path, arguments in (
        ("DLinear", "forecasting.DLinear", {**_SERIES, "kernel_size": 5}),
        ("N-BEATS", "forecasting.NBeats", {"seq_len": 32, "pred_len": 8, "hidden_dim": 16}),
        (
            "PatchTST",
            "forecasting.PatchTST",
            {**_SERIES, "patch_len": 8, "stride": 4, "d_model": 16, "depth": 1, "num_heads": 2},
        ),
        (
            "ConvLSTM",
            "weather.ConvLSTMNowcaster",
            {"input_shape": (3, 16, 16, 1), "pred_steps": 2, "filters": (4,)},
        ),
        ("U-Net", "remote_sensing.UNet", {"input_shape": IMAGE, "base_filters": 8, "depth": 2}),
        ("SegFormer", "remote_sensing.SegFormer", {"input_shape": IMAGE}),
        (
            "DeepLabV3+",
            "remote_sensing.DeepLabV3Plus",
            {"input_shape": IMAGE, "backbone_layers": (1, 1, 1, 1), "aspp_filters": 16},
        ),
    )
]
OTHERS = [
    ZooModel(
        "tfvit",
        "ViT",
        "tfvit.ViT",
        {
            "patch_size": 8,
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "img_size": 32,
            "input_shape": (32, 32, 3),
            "classes": 5,
        },
    ),
    ZooModel(
        "tfswin",
        "Swin",
        "tfswin.SwinTransformer",
        {
            "pretrain_size": 64,
            "window_size": 4,
            "embed_dim": 8,
            "depths": [2, 2],
            "num_heads": [1, 2],
            "input_shape": IMAGE,
            "classes": 5,
        },
    ),
    ZooModel("keras-tcn", "TCN", "tcn.TCN", {"nb_filters": 8, "dilations": (1, 2, 4)}, (24, 3)),
    ZooModel(
        "keras-vision",
        "FastViT",
        "keras_vision.fastvit.fastvit_t8",
        {"input_shape": IMAGE, "num_classes": 5},
    ),
    ZooModel("keras-efficient-kan", "KAN", "keras_efficient_kan.KANLinear", {"units": 4}, (6,)),
    ZooModel(
        "keras-hexagdly",
        "Hexagonal convolution",
        "keras_hexagdly.Conv2d",
        {"filters": 4, "kernel_size": 1},
        (12, 12, 3),
    ),
    ZooModel("mingru-keras", "minGRU", "mingru_keras.MinGRU", {"units": 4}, (12, 3)),
]
KECAM = models_of(
    "kecam",
    "keras_cv_attention_models",
    {"input_shape": IMAGE, "num_classes": 5, "pretrained": None},
    """
BoTNet botnet.BotNet26T
CAFormer caformer.CAFormerS18
CoaT coat.CoaTLiteTiny
CoTNet cotnet.CotNet50
CSPNeXt cspnext.CSPNeXtTiny
DaViT davit.DaViT_T
EfficientViT efficientvit.EfficientViT_B0
FasterNet fasternet.FasterNetT0
HaloNet halonet.HaloNet26T
FBNetV3 mobilenetv3_family.FBNetV3B
Hiera hiera.HieraTiny
HorNet hornet.HorNetTiny
MogaNet moganet.MogaNetXtiny
NFNet nfnets.ECA_NFNetL0
RepViT repvit.RepViT_M09
ResNeSt resnest.ResNest50
UniFormer uniformer.UniformerSmall32
VOLO volo.VOLO_d1
YOLOX yolox.YOLOXNano
WaveMLP mlp_family.WaveMLP_T
""",
)
MODELS = [
    *KIMM,
    *KYOLO,
    *HUB_TEXT,
    *HUB_IMAGES,
    *K3IM,
    *ZEROMODELS,
    *SEGMODELS,
    *MEDICAI,
    *CLIMATE,
    *OTHERS,
    *KECAM,
]
