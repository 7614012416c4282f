"""What the peers have in common: the job, the command line, and how tools/bench/data drives them.

The job: crop the 20 bottom rows, resize to 128x128, flip with probability 0.5, one affine map (shift up to 5 %, turn up to 10 degrees, scale up
to 5 %), batches of 64 uint8 images.

A peer prints one line of JSON when it is ready and warm; then, for each line on its standard input, it makes `--count` images and prints one
line of JSON: {"images": .., "seconds": ..}.
"""

import argparse
import json
import os
import sys
import time

SIZE = 128
CROP_BOTTOM = 20
BATCH = 64
FLIP = 0.5
TRANSLATE = 0.05
ROTATE = 10
SCALE = 0.05


def parser(doc):
    result = argparse.ArgumentParser(description=doc)
    source = result.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", help="folder of JPEGs")
    source.add_argument("--array", help=".npy file of decoded images, uint8 [N,128,128,3]")
    result.add_argument("--count", type=int, default=1024, help="images a measurement")
    result.add_argument("--workers", type=int, default=2, help="worker processes or threads")
    result.add_argument("--png", help="write the first batch as a picture")
    return result


def jpegs(folder):
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".jpg")]


def write_png(file, batch):
    """`batch`: uint8 [64,H,W,3] or [64,3,H,W], as eight rows of eight."""
    import numpy as np
    from PIL import Image

    batch = np.asarray(batch)
    if batch.shape[1] == 3:
        batch = batch.transpose(0, 2, 3, 1)
    height, width = batch.shape[1:3]
    grid = batch.reshape(8, 8, height, width, 3).swapaxes(1, 2).reshape(8 * height, 8 * width, 3)
    Image.fromarray(grid).save(file)


def serve(args, stream, untimed=0):
    """`stream()` yields batches, at least `untimed` + args.count / BATCH of them. The first `untimed` do not count: they were made before the
    clock started."""
    batches = args.count // BATCH

    def measure(png=None):
        iterator = iter(stream())
        for _ in range(untimed):
            next(iterator)
        start = time.perf_counter()
        images = 0
        for _ in range(batches):
            batch = next(iterator)
            if len(batch) != BATCH:
                sys.exit(f"a batch of {len(batch)} instead of {BATCH}")
            if png and images == 0:
                write_png(png, batch)
            images += len(batch)
        seconds = time.perf_counter() - start
        # A stream that ends by itself is read to its end, so that no worker is at work when the clock stops for another program.
        for _ in iterator if not untimed else ():
            sys.exit("more batches than asked for")
        return {"images": images, "seconds": seconds}

    measure(args.png)  # warms up
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)
