#!/usr/bin/env python3
"""PyTorch's DataLoader with Albumentations, with OpenCV alone, or with torchvision's transforms v2.

Settings that PyTorch, Albumentations and torchvision recommend: two persistent workers, whole batches fetched in the worker (__getitems__),
OpenCV's and torch's own threads off, uint8 throughout.
"""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import peer


class Images(Dataset):
    """`count` images, item i being image i modulo the number there are; fetched by the batch."""

    def __init__(self, items, count, load, augment):
        self.items, self.count, self.load, self.augment = items, count, load, augment

    def __len__(self):
        return self.count

    def __getitems__(self, indices):
        return [self.augment(self.load(self.items[i % len(self.items)])) for i in indices]


def stack_arrays(images):
    return torch.from_numpy(np.stack(images))


def read(file):
    with open(file, "rb") as stream:
        return stream.read()


def with_opencv(args):
    import cv2_images

    augment = cv2_images.by_albumentations() if args.transform == "albumentations" else cv2_images.by_hand
    if args.array:
        return (lambda image: image), augment, stack_arrays
    return (lambda file: cv2_images.decode(read(file), args.decode == "reduced")), augment, stack_arrays


def with_torchvision(args):
    from torchvision.io import ImageReadMode, decode_jpeg, read_file
    from torchvision.transforms import v2

    augment = v2.Compose([
        v2.RandomHorizontalFlip(peer.FLIP),
        v2.RandomAffine(peer.ROTATE, translate=(peer.TRANSLATE, peer.TRANSLATE), scale=(1 - peer.SCALE, 1 + peer.SCALE),
                        interpolation=v2.InterpolationMode.BILINEAR),
    ])

    def load_tensor(file):
        image = decode_jpeg(read_file(file), mode=ImageReadMode.RGB)
        return v2.functional.resize(image[:, :-peer.CROP_BOTTOM], [peer.SIZE, peer.SIZE], antialias=True)

    return (lambda image: torch.from_numpy(image).permute(2, 0, 1)) if args.array else load_tensor, augment, torch.stack


def with_torchvision_pil(args):
    from PIL import Image

    _, augment, _ = with_torchvision(args)

    def load_pil(file):
        with Image.open(file) as image:
            height = image.height
            image.draft("RGB", (peer.SIZE, peer.SIZE))  # decoded at a half, a quarter or an eighth where that is enough
            crop = peer.CROP_BOTTOM * image.height / height
            return image.convert("RGB").resize((peer.SIZE, peer.SIZE), Image.Resampling.BILINEAR, box=(0, 0, image.width, image.height - crop))

    return Image.fromarray if args.array else load_pil, lambda image: np.asarray(augment(image)), stack_arrays


def main():
    parser = peer.parser(__doc__)
    parser.add_argument("--transform", choices=["albumentations", "opencv", "torchvision", "torchvision-pil"], required=True)
    parser.add_argument("--decode", choices=["full", "reduced"], default="reduced", help="how OpenCV decodes")
    args = parser.parse_args()
    how = {"torchvision": with_torchvision, "torchvision-pil": with_torchvision_pil}.get(args.transform, with_opencv)
    load, augment, collate = how(args)
    items = np.load(args.array, mmap_mode="r") if args.array else peer.jpegs(args.images)
    loader = DataLoader(Images(items, args.count, load, augment), batch_size=peer.BATCH, num_workers=args.workers, persistent_workers=True,
                        collate_fn=collate)
    peer.serve(args, lambda: loader)


if __name__ == "__main__":
    main()
