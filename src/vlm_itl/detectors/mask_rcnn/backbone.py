"""A thin ResNet with an FPN: ResNet-18's layout (He et al. 2016) at half width or less, for training on a CPU.

Detectron2's own ResNet-18 is fixed to 64 channels after the stem. This one takes STEM_OUT_CHANNELS for that width.
"""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem


@BACKBONE_REGISTRY.register()
def build_thin_resnet18_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """FPN over four stages of two basic blocks with w, 2w, 3w and 4w channels, w = MODEL.RESNETS.STEM_OUT_CHANNELS.

    With ResNet-18's 4w and 8w the last two stages would hold two thirds of all parameters of the default detector.
    """
    width, norm = cfg.MODEL.RESNETS.STEM_OUT_CHANNELS, cfg.MODEL.RESNETS.NORM
    stages, channels = [], width
    for stage in range(4):
        out = width * (stage + 1)
        strides = [1 if stage == 0 else 2, 1]
        stages.append(ResNet.make_stage(BasicBlock, 2, stride_per_block=strides, in_channels=channels, out_channels=out, norm=norm))
        channels = out
    resnet = ResNet(BasicStem(input_shape.channels, width, norm=norm), stages, out_features=cfg.MODEL.RESNETS.OUT_FEATURES)
    return FPN(resnet, cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.FPN.OUT_CHANNELS, norm=cfg.MODEL.FPN.NORM, top_block=LastLevelMaxPool())
