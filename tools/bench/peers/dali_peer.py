#!/usr/bin/env python3
"""NVIDIA DALI on the CPU: decoder, resize of a region, one composed warp."""

import numpy as np
from nvidia.dali import fn, pipeline_def, types

import peer

PREFETCH = 2


def augmented(images):
    flip = fn.cast(fn.random.coin_flip(probability=peer.FLIP), dtype=types.FLOAT)
    scale = fn.random.uniform(range=(1 - peer.SCALE, 1 + peer.SCALE))
    centre = [peer.SIZE / 2, peer.SIZE / 2]
    matrix = fn.transforms.scale(scale=fn.stack(scale * (1 - 2 * flip), scale), center=centre)
    matrix = fn.transforms.rotation(matrix, angle=fn.random.uniform(range=(-peer.ROTATE, peer.ROTATE)), center=centre)
    reach = peer.TRANSLATE * peer.SIZE
    matrix = fn.transforms.translation(matrix, offset=fn.random.uniform(range=(-reach, reach), shape=2))
    # No fill_value: the border's pixels are repeated.
    return fn.warp_affine(images, matrix=matrix, inverse_map=False, interp_type=types.INTERP_LINEAR)


@pipeline_def
def from_jpegs(files):
    encoded, _ = fn.readers.file(files=files)
    images = fn.decoders.image(encoded, device="cpu", output_type=types.RGB, use_fast_idct=True)
    shape = fn.cast(images.shape(), dtype=types.FLOAT)
    images = fn.resize(images, size=[peer.SIZE, peer.SIZE], roi_start=[0.0, 0.0], roi_end=fn.stack(shape[0] - peer.CROP_BOTTOM, shape[1]),
                       interp_type=types.INTERP_LINEAR, antialias=True)
    return augmented(images)


@pipeline_def
def from_array(array):
    batches = len(array) // peer.BATCH

    def batch(number):
        first = number % batches * peer.BATCH
        return array[first:first + peer.BATCH]

    return augmented(fn.external_source(source=batch, layout="HWC", no_copy=True, batch=True))


def main():
    parser = peer.parser(__doc__)
    args = parser.parse_args()
    options = {"batch_size": peer.BATCH, "num_threads": args.workers, "device_id": None, "prefetch_queue_depth": PREFETCH}
    if args.array:
        pipeline = from_array(np.load(args.array, mmap_mode="r"), **options)
    else:
        pipeline = from_jpegs(peer.jpegs(args.images), **options)
    pipeline.build()

    def batches():
        while True:
            yield pipeline.run()[0].as_array()

    peer.serve(args, batches, untimed=PREFETCH + 1)


if __name__ == "__main__":
    main()
