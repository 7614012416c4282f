#!/usr/bin/env python3
"""webdataset: tar shards of the JPEGs, two workers, batched in the workers, OpenCV and Albumentations for the images."""

import glob
import io
import os
import tarfile

import numpy as np
import torch
import webdataset as wds

import cv2_images
import peer

SHARDS = 4


def write_shards(files, folder):
    """The files in SHARDS tar files of whole batches each."""
    os.makedirs(folder, exist_ok=True)
    each = len(files) // SHARDS
    for shard in range(SHARDS):
        with tarfile.open(os.path.join(folder, f"{shard:04d}.tar"), "w") as tar:
            for file in files[shard * each:(shard + 1) * each]:
                with open(file, "rb") as stream:
                    data = stream.read()
                entry = tarfile.TarInfo(os.path.basename(file))
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def main():
    parser = peer.parser(__doc__)
    parser.add_argument("--decode", choices=["full", "reduced"], default="reduced")
    parser.add_argument("--tars", required=True, help="folder for the tar shards; they are made where they are missing")
    args = parser.parse_args()
    files = peer.jpegs(args.images)
    if not glob.glob(os.path.join(args.tars, "*.tar")):
        write_shards(files, args.tars)
    augment = cv2_images.by_albumentations()
    dataset = (
        wds.WebDataset(sorted(glob.glob(os.path.join(args.tars, "*.tar"))), shardshuffle=False)
        .map(lambda sample: augment(cv2_images.decode(sample["jpg"], args.decode == "reduced")))
        .batched(peer.BATCH, collation_fn=lambda images: torch.from_numpy(np.stack(images)), partial=False)
        .repeat(args.count // len(files))
    )
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=args.workers, persistent_workers=True)
    peer.serve(args, lambda: loader)


if __name__ == "__main__":
    main()
