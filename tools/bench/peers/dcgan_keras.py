#!/usr/bin/env python3
"""The seed's training step in Keras on TensorFlow, as one tf.function: one Adam update of D on 64 reals, one on 64 fakes, one of G through
D with the same z, at 128x128. Layers and settings are those of train.dcgan; mixed_bfloat16 is Keras's own policy.

Speaks as dcgan_torch.py does.
"""

import argparse
import json
import os
import resource
import sys
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402  (reads the backend when it is imported)
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402


def generator():
    z = layers.Input((64,))
    x = layers.Reshape((8, 8, 512))(layers.Dense(512 * 8 * 8, activation="relu")(z))
    for channels in (256, 128, 64, 32):
        x = layers.Conv2D(channels, 3, padding="same")(layers.UpSampling2D()(x))
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(x))
    x = layers.Conv2D(3, 3, padding="same")(x)
    return keras.Model(z, layers.Activation("tanh", dtype="float32")(x))


def discriminator():
    x = images = layers.Input((128, 128, 3))
    for number, (channels, stride) in enumerate(((32, 2), (64, 2), (128, 2), (256, 2), (512, 1))):
        x = layers.Conv2D(channels, 3, strides=stride, padding="same")(x)
        if number:
            x = layers.BatchNormalization(momentum=0.8)(x)
        x = layers.Dropout(0.25)(layers.LeakyReLU(negative_slope=0.2)(x))
    return keras.Model(images, layers.Dense(1, dtype="float32")(layers.Flatten()(x)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("fp32", "bf16"), required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--inter", type=int, default=1, help="operations side by side")
    parser.add_argument("--steps", type=int, default=3, help="a measurement")
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(args.inter)
    keras.mixed_precision.set_global_policy({"bf16": "mixed_bfloat16", "fp32": "float32"}[args.precision])
    keras.utils.set_random_seed(1)
    g, d = generator(), discriminator()
    update_g, update_d = (keras.optimizers.Adam(2e-4, beta_1=0.5) for _ in range(2))
    update_g.build(g.trainable_variables)
    update_d.build(d.trainable_variables)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    ones, zeros = tf.ones((64, 1)), tf.zeros((64, 1))

    def train(images, target):
        with tf.GradientTape() as tape:
            value = loss(target, d(images, training=True))
        update_d.apply_gradients(zip(tape.gradient(value, d.trainable_variables), d.trainable_variables))
        return value

    @tf.function
    def step(reals):
        with tf.GradientTape() as of_g:
            fakes = g(tf.random.normal((64, 64)), training=True)
        on_real, on_fake = train(reals, ones), train(tf.stop_gradient(fakes), zeros)
        with tf.GradientTape() as through_d:
            through_d.watch(fakes)
            fooled = loss(ones, d(fakes, training=True))
        gradients = of_g.gradient(fakes, g.trainable_variables, output_gradients=through_d.gradient(fooled, fakes))
        update_g.apply_gradients(zip(gradients, g.trainable_variables))
        return on_real, on_fake, fooled

    reals = tf.constant(np.random.default_rng(0).uniform(-1, 1, (64, 128, 128, 3)).astype("float32"))
    for _ in range(3):
        step(reals)
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(args.steps):
            losses = [float(value) for value in step(reals)]
        print(json.dumps({"steps": args.steps, "seconds": time.perf_counter() - start, "losses": losses,
                          "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


if __name__ == "__main__":
    main()
