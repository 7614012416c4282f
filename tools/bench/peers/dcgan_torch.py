#!/usr/bin/env python3
"""The seed's training step in PyTorch: one Adam update of D on 64 reals, one on 64 fakes, one of G through D with the same z, at 128x128.

Layers and settings are those of train.dcgan (see stages/torch/dcgan.hpp). channels_last, Adam fused, losses read once a step.
Prints {"ready": true} when it is warm, and for each line on its standard input {"steps": .., "seconds": .., "peak_memory_bytes": ..}.
"""

import argparse
import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class SamePad(nn.Module):
    """Keras's padding at stride 2: a row below, a column to the right."""

    def forward(self, x):
        return F.pad(x, (0, 1, 0, 1))


def norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.2)


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(64, 512 * 8 * 8)
        layers, before = [], 512
        for channels in (256, 128, 64, 32):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(before, channels, 3, padding=1), norm(channels), nn.ReLU()]
            before = channels
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 3, 3, padding=1), nn.Tanh())

    def forward(self, z):
        x = F.relu(self.dense(z)).view(-1, 8, 8, 512).permute(0, 3, 1, 2)
        return self.layers(x)


def discriminator():
    layers, before = [], 3
    for number, (channels, stride) in enumerate(((32, 2), (64, 2), (128, 2), (256, 2), (512, 1))):
        layers += [SamePad(), nn.Conv2d(before, channels, 3, stride=2)] if stride == 2 else [nn.Conv2d(before, channels, 3, padding=1)]
        layers += [norm(channels)] if number else []
        layers += [nn.LeakyReLU(0.2), nn.Dropout(0.25)]
        before = channels
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * 8 * 8, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("fp32", "bf16"), required=True)
    parser.add_argument("--mode", choices=("eager", "compile"), default="eager")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="a measurement")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    g = Generator().to(memory_format=torch.channels_last)
    d = discriminator().to(memory_format=torch.channels_last)
    parameters_d = list(d.parameters())
    adam = {"lr": 2e-4, "betas": (0.5, 0.999), "eps": 1e-7, "fused": True}
    update_g, update_d = torch.optim.Adam(g.parameters(), **adam), torch.optim.Adam(parameters_d, **adam)
    reals = torch.rand(64, 3, 128, 128).mul(2).sub(1).to(memory_format=torch.channels_last)
    ones, zeros = torch.ones(64, 1), torch.zeros(64, 1)
    run_g, run_d = (torch.compile(g), torch.compile(d)) if args.mode == "compile" else (g, d)

    def judge(images, target):
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            logits = run_d(images)
        return F.binary_cross_entropy_with_logits(logits.float(), target)

    def step():
        z = torch.randn(64, 64)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            fakes = run_g(z)
        losses = [judge(reals, ones), None, None]
        losses[0].backward()
        update_d.step()
        update_d.zero_grad()
        losses[1] = judge(fakes.detach(), zeros)
        losses[1].backward()
        update_d.step()
        update_d.zero_grad()
        for parameter in parameters_d:
            parameter.requires_grad_(False)
        losses[2] = judge(fakes, ones)
        losses[2].backward()
        for parameter in parameters_d:
            parameter.requires_grad_(True)
        update_g.step()
        update_g.zero_grad()
        return torch.stack([loss.detach() for loss in losses]).tolist()

    for _ in range(3):
        step()
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(args.steps):
            losses = step()
        print(json.dumps({"steps": args.steps, "seconds": time.perf_counter() - start, "losses": losses,
                          "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


if __name__ == "__main__":
    main()
