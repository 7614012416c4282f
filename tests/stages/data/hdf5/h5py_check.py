#!/usr/bin/env python3
"""Reads a folder of shards with h5py alone, as a user would, and compares it with its manifest.

Not part of ctest: it needs h5py (python3 -m venv V && V/bin/pip install h5py).
Usage: V/bin/python tests/stages/data/hdf5/h5py_check.py SHARD_DIR
"""

import hashlib
import json
import pathlib
import sys

import h5py
import numpy as np


def crc32c_table():
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


TABLE = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def main(root):
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    assert crc32c(b"123456789") == 0xE3069283
    keys = []
    for shard in manifest["shards"]:
        path = root / shard["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"], path
        with h5py.File(path, "r") as file:
            images, labels = file["images"], file["labels"]
            assert set(file) == {"images", "crc32c", "labels", "keys"}, set(file)
            assert images.shape == (shard["images"], *manifest["image_shape"]), images.shape
            assert images.dtype == np.uint8 and images.chunks is None
            assert labels.dtype == np.int32 and file["crc32c"].dtype == np.uint32
            assert file.attrs["schema_version"] == manifest["schema_version"]
            for name in ("source_digest", "config_digest"):
                value = file.attrs[name]
                value = value.decode() if isinstance(value, bytes) else str(value)
                assert value == manifest[name], (name, value)
            names = [n.decode("utf-8") for n in file.attrs["class_names"]]
            assert names == manifest["class_names"], names[:3]
            assert labels[...].min() >= -1 and labels[...].max() < max(1, len(names))
            keys += list(file["keys"].asstr()[...])
            # The contiguous layout that lets a reader do without HDF5.
            offset = images.id.get_offset()
            raw = np.memmap(path, np.uint8, "r", offset, images.shape)
            assert np.array_equal(raw, images[...])
            for i in {0, shard["images"] // 2, shard["images"] - 1}:
                assert crc32c(images[i].tobytes()) == file["crc32c"][i], (path, i)
    assert len(keys) == len(set(keys)) == manifest["images"]
    print(f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}: {len(keys)} images in "
          f"{len(manifest['shards'])} shards, first key '{keys[0]}': all as expected")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
