#!/usr/bin/env python3
"""Writes the fixtures of convert_weights_test.py; needs PyTorch and safetensors (made with 2.15.0 and 0.8.0).

    python3 tests/tools/make_convert_weights_fixtures.py     # into tests/tools/fixtures

zip.pth and legacy.pth hold one state dict in torch.save's two formats; expected.json holds its tensors as PyTorch sees them:
name -> [safetensors dtype, shape, contiguous bytes in hexadecimal].
"""

import collections
import json
import pathlib

import torch

FOLDER = pathlib.Path(__file__).parent / "fixtures"
SAFETENSORS_NAME = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def state_dict():
    torch.manual_seed(7)
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = {f"dtype.{name.lower()}": (torch.randn(2, 3) * 40).to(dtype) for dtype, name in SAFETENSORS_NAME.items()}
    state |= {
        "view.transposed": base.t(),
        "view.permuted": torch.arange(24, dtype=torch.int16).reshape(2, 3, 4).permute(2, 0, 1),
        "view.channels_last": torch.randn(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
        "view.every_second": base[:, ::2],
        "view.column": base[:, 1],
        "view.tail": base[3, 2:],  # shares base's storage, does not begin at its beginning
        "view.tied": base,
        "shape.scalar": torch.tensor(3.5),
        "shape.empty": torch.empty(0, 5),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "nested": collections.OrderedDict(weight=torch.ones(2), bias=torch.zeros(1)),
    }
    # The state dict of a real module carries attributes (_metadata) besides its tensors.
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    state["module"] = module.state_dict()
    return state


def flat(state, prefix=""):
    for name, value in state.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value.detach()


def to_bytes(tensor):
    # view(uint8) needs a dimension; .contiguous() is what the converter must reproduce
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())


def main():
    FOLDER.mkdir(exist_ok=True)
    state = state_dict()
    torch.save(state, FOLDER / "zip.pth")
    torch.save(state, FOLDER / "legacy.pth", _use_new_zipfile_serialization=False)
    wide = {"u16": torch.tensor([1, 65535], dtype=torch.uint16), "u32": torch.tensor([1, 2**32 - 1], dtype=torch.uint32),
            "u64": torch.tensor([1, 2**63], dtype=torch.uint64), "f8": torch.tensor([0.5, -2]).to(torch.float8_e4m3fn)}
    torch.save(wide, FOLDER / "unsigned.pth")
    torch.save({"epoch": 3, "state_dict": {"weight": torch.ones(2)}}, FOLDER / "checkpoint.pth")
    torch.save({"weight": torch.ones(1).expand(1000)}, FOLDER / "expanded.pth")
    torch.save(torch.nn.Linear(1, 1), FOLDER / "module.pth")
    expected = {name: [SAFETENSORS_NAME[t.dtype], list(t.shape), to_bytes(t).hex()] for name, t in flat(state)}
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
