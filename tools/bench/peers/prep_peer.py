#!/usr/bin/env python3
"""The script that is usually written for what gan-prep does: a folder of JPEGs, cropped and resized, into one HDF5 file.

With Pillow in one process, or with OpenCV in two. The file holds images uint8 [N,128,128,3], labels by folder, and keys; no checksums.
"""

import argparse
import multiprocessing
import os

import h5py
import numpy as np

import peer


def pillow(file, reduced):
    from PIL import Image

    with Image.open(file) as image:
        height = image.height
        if reduced:
            image.draft("RGB", (peer.SIZE, peer.SIZE))
        crop = peer.CROP_BOTTOM * image.height / height
        box = (0, 0, image.width, image.height - crop)
        return np.asarray(image.convert("RGB").resize((peer.SIZE, peer.SIZE), Image.Resampling.BOX, box=box))


def opencv(file, reduced):
    import cv2_images

    with open(file, "rb") as stream:
        return cv2_images.decode(stream.read(), reduced)


class Job:
    """One image; an object, so that the pool can pickle it."""

    def __init__(self, how, reduced):
        self.how, self.reduced = how, reduced

    def __call__(self, file):
        return self.how(file, self.reduced)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--decoder", choices=["pillow", "opencv"], required=True)
    parser.add_argument("--decode", choices=["full", "reduced"], default="reduced", help="reduced: Pillow's draft(), OpenCV's REDUCED_COLOR_4")
    parser.add_argument("--workers", type=int, default=1, help="1: no processes beside this one")
    args = parser.parse_args()
    folders = sorted(os.listdir(args.images))
    keys = [f"{folder}/{os.path.basename(file)}" for folder in folders for file in peer.jpegs(os.path.join(args.images, folder))]
    files = [os.path.join(args.images, key) for key in keys]
    job = Job({"pillow": pillow, "opencv": opencv}[args.decoder], args.decode == "reduced")
    with h5py.File(args.out, "w") as out:
        images = out.create_dataset("images", (len(files), peer.SIZE, peer.SIZE, 3), np.uint8)
        out["labels"] = np.array([folders.index(key.split("/")[0]) for key in keys], np.int32)
        out["keys"] = np.array(keys, "S")
        if args.workers == 1:
            for i, file in enumerate(files):
                images[i] = job(file)
        else:
            with multiprocessing.Pool(args.workers) as pool:
                for i, image in enumerate(pool.imap(job, files, chunksize=16)):
                    images[i] = image


if __name__ == "__main__":
    main()
