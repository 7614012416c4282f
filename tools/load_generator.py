"""Loads the generator of a gan-pipeline checkpoint, or of `gan-pipeline export`, into PyTorch:

    generator = load_generator("generator.safetensors")     # the moving average where there is one
    images = generator(torch.randn(16, generator.latent))   # [16, 3, H, W] in [-1, 1]
    images = generator(z, labels)                           # of a model with classes: int64 [16]

One that grows in phases gives images of the size that it has grown to.
"""
import json

import safetensors
import torch
from torch.nn import functional as F


class Generator(torch.nn.Module):
    """In evaluation mode; the layers are described in stages/torch/dcgan.hpp and gan_networks.hpp."""

    def __init__(self, weights, metadata):
        super().__init__()
        self.metadata = metadata
        model = metadata["model"]
        if metadata.get("format", 3) < 4 and (model.get("blocks", "plain"), model.get("growth", "none")) != ("plain", "none"):
            raise ValueError("this generator is of an earlier version, whose residual and growing networks compute something else; load it with "
                             "that version's load_generator.py")
        self.latent = model["latent"]
        self.growth = model.get("growth", "none")
        self.size = metadata.get("growth", {}).get("resolution") or model["resolution"]
        self.fade = metadata.get("growth", {}).get("fade", 1)
        self.leak = 0.0 if model.get("norm_g", "batch") == "batch" else 0.2
        self.w = weights

    def conv(self, name, x, padding=1):
        return F.conv2d(x, self.w[name + ".weight"], self.w[name + ".bias"], padding=padding)

    def activate(self, norm, x):
        if norm + ".weight" in self.w:
            x = F.batch_norm(x, *(self.w[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")),
                             eps=1e-3)
        return F.leaky_relu(x, self.leak)

    def block(self, name, x):
        y = self.activate(name + "_norm", self.conv(name + "_conv", F.interpolate(x, scale_factor=2)))
        if name + "_conv2.weight" not in self.w:
            return y
        skip = self.conv(name + "_skip", x, 0) if name + "_skip.weight" in self.w else x
        return self.conv(name + "_conv2", y) + F.interpolate(skip, scale_factor=2, mode="bilinear")

    def forward(self, z, labels=None):
        if "embedding.weight" in self.w:
            row = self.w["embedding.weight"][labels]
            z = torch.cat([z, row * torch.rsqrt(row.square().mean(1, keepdim=True) + 1e-8)], 1)
        x = F.linear(z, self.w["dense.weight"], self.w["dense.bias"])
        base = "base_conv.weight" in self.w
        x = (x if base else F.leaky_relu(x, self.leak)).unflatten(1, (8, 8, -1)).permute(0, 3, 1, 2)
        x = self.activate("base_norm", self.conv("base_conv", x)) if base else x
        image = self.conv("rgb8", x) if self.growth == "skip" else None
        for number in range((self.size // 8).bit_length() - 1):
            small, x = x, self.block(f"block{number}", x)
            if self.growth == "skip":
                image = F.interpolate(image, scale_factor=2, mode="bilinear") + self.conv(f"rgb{16 << number}", x)
        if self.growth == "none":
            image = self.conv("image", x)
        if self.growth == "phases":
            image = self.conv(f"rgb{self.size}", x)
            if self.fade < 1:
                old = F.interpolate(self.conv(f"rgb{self.size // 2}", small), scale_factor=2)
                image = torch.lerp(old, image, self.fade)
        return torch.tanh(image)


def load_generator(path, device="cpu"):
    with safetensors.safe_open(path, framework="pt", device=device) as file:
        names = list(file.keys())
        prefix = "EMA." if any(name.startswith("EMA.") for name in names) else "G."
        weights = {name[len(prefix):]: file.get_tensor(name) for name in names if name.startswith(prefix)}
        return Generator(weights, json.loads(file.metadata()["gan_pipeline"]))
