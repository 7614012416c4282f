"""Loads the generator of a gan-pipeline checkpoint, or of `gan-pipeline export`, into PyTorch:

    generator = load_generator("generator.safetensors")     # the moving average where there is one
    images = generator(torch.randn(16, generator.latent))   # [16, 3, H, W] in [-1, 1]
"""
import json

import safetensors
import torch
from torch.nn import functional as F


class Generator(torch.nn.Module):
    """The generator of train.dcgan in evaluation mode; its layers are described in stages/torch/dcgan.hpp."""

    def __init__(self, weights, metadata):
        super().__init__()
        self.metadata = metadata
        self.latent = metadata["model"]["latent"]
        self.w = weights

    def forward(self, z):
        w = self.w
        x = F.relu(F.linear(z, w["dense.weight"], w["dense.bias"])).unflatten(1, (8, 8, -1)).permute(0, 3, 1, 2)
        for block in range(sum(name.endswith("_conv.weight") for name in w)):
            conv, norm = f"block{block}_conv.", f"block{block}_norm."
            x = F.conv2d(F.interpolate(x, scale_factor=2), w[conv + "weight"], w[conv + "bias"], padding=1)
            x = F.relu(F.batch_norm(x, w[norm + "running_mean"], w[norm + "running_var"], w[norm + "weight"],
                                    w[norm + "bias"], eps=1e-3))
        return torch.tanh(F.conv2d(x, w["image.weight"], w["image.bias"], padding=1))


def load_generator(path, device="cpu"):
    with safetensors.safe_open(path, framework="pt", device=device) as file:
        names = list(file.keys())
        prefix = "EMA." if any(name.startswith("EMA.") for name in names) else "G."
        weights = {name[len(prefix):]: file.get_tensor(name) for name in names if name.startswith(prefix)}
        return Generator(weights, json.loads(file.metadata()["gan_pipeline"]))
