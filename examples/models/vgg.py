"""VGG: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015."""

from __future__ import annotations

from collections.abc import Sequence

from graphc import Tensor, nn

_SIXTEEN = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
"""The channels of each 3x3 convolution; M halves the picture."""


class VGG(nn.Module):
    """Images [N, 3, H, W] to logits [N, num_classes]."""

    def __init__(self, layers: Sequence[int | str], num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = _convolutions(layers)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def _convolutions(layers: Sequence[int | str]) -> nn.Sequential:
    modules: list[nn.Module] = []
    channels = 3
    for layer in layers:
        if isinstance(layer, str):
            modules.append(nn.MaxPool2d(2, stride=2))
        else:
            modules += [nn.Conv2d(channels, layer, 3, padding=1), nn.ReLU(inplace=True)]
            channels = layer
    return nn.Sequential(*modules)


def vgg16(num_classes: int = 1000) -> VGG:
    """16 layers, 138 million parameters."""
    return VGG(_SIXTEEN, num_classes)
