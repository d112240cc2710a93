"""Chains of convolutions and pools from one line of text."""

from torch import nn


def chain(plan: str, in_channels: int = 3) -> list[nn.Module]:
    """Layers of "64.3 64.11s4p2 M2 M3s2": convolutions' channels.kernel, stride, padding (half the kernel); pools."""
    layers: list[nn.Module] = []
    for word in plan.split():
        pool, (head, _, rest) = word.startswith("M"), word.lstrip("M").partition("s")
        stride, _, padding = rest.partition("p")
        if pool:
            layers.append(nn.MaxPool2d(int(head), int(stride or head)))
            continue
        channels, kernel = map(int, head.split("."))
        pad = int(padding) if padding else kernel // 2
        layers += [nn.Conv2d(in_channels, channels, kernel, int(stride or 1), pad), nn.ReLU(inplace=True)]
        in_channels = channels
    return layers


ALEXNET = "64.11s4p2 M3s2 192.5 M3s2 384.3 256.3 256.3 M3s2"
VGG16 = "64.3 64.3 M2 128.3 128.3 M2 256.3 256.3 256.3 M2 512.3 512.3 512.3 M2 512.3 512.3 512.3 M2"
