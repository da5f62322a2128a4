"""Residual networks for 32 × 32 images, built from torchvision's parts; channels last, with which convolutions are
fastest.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet


def resnet18(num_classes: int = 10) -> ResNet:
    """(B, 3, 32, 32) -> (B, num_classes) logits: ResNet18 with a 3 × 3 stem and no pooling after it.

    11,173,962 parameters for ten classes, 11,220,132 for a hundred.
    """
    network = ResNet(BasicBlock, [2, 2, 2, 2], num_classes)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does the others
    network.maxpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return network.to(memory_format=torch.channels_last)


class Shortcut(nn.Module):
    """Takes every other pixel and doubles the channels with zeros; no parameters (option A of the paper)."""

    def forward(self, x: Tensor) -> Tensor:
        num_new = x.shape[1]
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, num_new // 2, num_new - num_new // 2))


def resnet20(num_classes: int = 10) -> nn.Sequential:
    """(B, 3, 32, 32) -> (B, num_classes) logits: three stages of three blocks; 269,722 parameters for ten classes."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    for width in (16, 32, 64):
        first = BasicBlock(16, 16) if width == 16 else BasicBlock(width // 2, width, stride=2, downsample=Shortcut())
        layers += [first, BasicBlock(width, width), BasicBlock(width, width)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network.to(memory_format=torch.channels_last)
