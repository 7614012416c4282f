#!/usr/bin/env python3
"""What the bench works on where no photographs are given, and what it makes of them for its peers.

`jpegs FOLDER COUNT`: JPEGs of 1024x695 whose spectrum falls off like a photograph's, about 130 KB each. `array SHARDS FILE`: the images of
gan-prep's shards as one .npy file.
"""

import os
import sys

import numpy as np

WIDTH, HEIGHT = 1024, 695


def draw(number):
    from PIL import Image

    rng = np.random.default_rng(number)
    image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for octave in range(2, 9):
        cells = 2**octave
        noise = rng.standard_normal((cells * HEIGHT // WIDTH + 2, cells, 3)).astype(np.float32)
        noise = 0.8 * noise.mean(2, keepdims=True) + 0.2 * noise  # mostly gray, as photographs are
        for channel in range(3):
            layer = Image.fromarray(noise[:, :, channel]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            image[:, :, channel] += np.asarray(layer) * 120 / 2 ** (0.6 * octave)
    image += 6 * rng.standard_normal((HEIGHT, WIDTH, 1)).astype(np.float32)  # a sensor's grain
    return Image.fromarray(np.clip(image + 128, 0, 255).astype(np.uint8))


def main():
    if sys.argv[1] == "jpegs":
        folder, count = sys.argv[2], int(sys.argv[3])
        os.makedirs(folder)
        for number in range(count):
            draw(number).save(os.path.join(folder, f"{number:07d}.jpg"), quality=82, subsampling="4:2:0")
    else:
        import glob

        import h5py

        shards = [h5py.File(file)["images"][:] for file in sorted(glob.glob(os.path.join(sys.argv[2], "*.h5")))]
        np.save(sys.argv[3], np.concatenate(shards))


if __name__ == "__main__":
    main()
