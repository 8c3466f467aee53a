"""MobileNetV2: Sandler, Howard, Zhu, Zhmoginov, Chen, "Inverted Residuals and Linear Bottlenecks", CVPR 2018."""

from __future__ import annotations

from graphc import Tensor, nn

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, how many blocks, and the stride of the first of them."""


def _rounded(channels: float) -> int:
    """A multiple of 8 near a width, and no less than nine tenths of it."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


class ConvNormActivation(nn.Sequential):
    """A convolution without bias, its normalisation, and ReLU6."""

    def __init__(self, inp: int, oup: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__(nn.Conv2d(inp, oup, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(oup),
                         nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Widen by a 1x1 convolution, filter each channel on its own, narrow again; with a shortcut where the shape stays."""

    def __init__(self, inp: int, oup: int, stride: int, expand_ratio: int) -> None:
        super().__init__()
        hidden = inp * expand_ratio
        layers: list[nn.Module] = [] if expand_ratio == 1 else [ConvNormActivation(inp, hidden, kernel=1)]
        layers += [ConvNormActivation(hidden, hidden, stride=stride, groups=hidden), nn.Conv2d(hidden, oup, 1, bias=False),
                   nn.BatchNorm2d(oup)]
        self.conv = nn.Sequential(*layers)
        self.use_res_connect = stride == 1 and inp == oup

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(nn.Module):
    """Images [N, 3, H, W] to logits [N, num_classes]; `width_mult` scales all channels."""

    def __init__(self, num_classes: int = 1000, width_mult: float = 1.0, dropout: float = 0.2) -> None:
        super().__init__()
        channels = _rounded(32 * width_mult)
        self.last_channel = _rounded(1280 * max(1.0, width_mult))
        features: list[nn.Module] = [ConvNormActivation(3, channels, stride=2)]
        for expansion, width, blocks, stride in _STAGES:
            for i in range(blocks):
                features.append(InvertedResidual(channels, _rounded(width * width_mult), stride if i == 0 else 1, expansion))
                channels = _rounded(width * width_mult)
        features.append(ConvNormActivation(channels, self.last_channel, kernel=1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.last_channel, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenet_v2(num_classes: int = 1000, width_mult: float = 1.0) -> MobileNetV2:
    """53 layers, 3.5 million parameters at width 1."""
    return MobileNetV2(num_classes, width_mult)
