"""Decoding and augmenting with OpenCV, by hand or through Albumentations."""

import math
import random

import cv2
import numpy as np

import peer

cv2.setNumThreads(0)  # the loader's workers are the parallelism


def decode(data, reduced):
    """JPEG bytes -> uint8 RGB [128,128,3]. `reduced`: decoded at a quarter of the size, which OpenCV documents as IMREAD_REDUCED_COLOR_4 and
    which fits photographs of at least 512 pixels only."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_4 if reduced else cv2.IMREAD_COLOR)
    crop = peer.CROP_BOTTOM // 4 if reduced else peer.CROP_BOTTOM
    image = cv2.resize(image[:-crop], (peer.SIZE, peer.SIZE), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def by_albumentations():
    import albumentations as A

    transform = A.Compose([
        A.HorizontalFlip(p=peer.FLIP),
        A.Affine(scale=(1 - peer.SCALE, 1 + peer.SCALE), translate_percent=(-peer.TRANSLATE, peer.TRANSLATE), rotate=(-peer.ROTATE, peer.ROTATE),
                 interpolation=cv2.INTER_LINEAR, border_mode=cv2.BORDER_REFLECT_101, p=1),
    ])
    return lambda image: transform(image=image)["image"]


def by_hand(image):
    """Flip and affine composed into one warpAffine, as somebody would write it who needs nothing else."""
    centre = (peer.SIZE - 1) / 2
    angle = math.radians(random.uniform(-peer.ROTATE, peer.ROTATE))
    scale = random.uniform(1 - peer.SCALE, 1 + peer.SCALE)
    a, b = scale * math.cos(angle), scale * math.sin(angle)
    mirror = -1 if random.random() < peer.FLIP else 1
    dx = centre + random.uniform(-peer.TRANSLATE, peer.TRANSLATE) * peer.SIZE
    dy = centre + random.uniform(-peer.TRANSLATE, peer.TRANSLATE) * peer.SIZE
    matrix = np.array([[mirror * a, b, dx - centre * (mirror * a + b)], [-mirror * b, a, dy - centre * (a - mirror * b)]])
    return cv2.warpAffine(image, matrix, (peer.SIZE, peer.SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
