#!/usr/bin/env python3
"""pytorch-fid, clean-fid and torch-fidelity with given weights, and what tools/bench/evaluation and tools/check_fid_parity feed them.

  fid_peer.py weights OUT.pth [--from F.safetensors]  a state dict like pytorch-fid's; without F it is drawn from a seed, as in the tests
  fid_peer.py images FOLDER --count N --sizes 128x128,.. --seed S       pictures as PNG, widthxheight, one size after the other
  fid_peer.py inputs OUT.safetensors --count N        what features and distances are measured on
  fid_peer.py fid TOOL A B --weights W.pth            prints {"frechet_distance": ..} of two folders
  fid_peer.py features TOOL --inputs F --weights W.pth       a peer of tools/bench/evaluation (see below)
  fid_peer.py distance --inputs F                            another

pytorch-fid would download its weights; here it gets the state dict of W.pth instead. So does torch-fidelity, by its own option. clean-fid's
network is a TorchScript file with the weights inside: here it is pytorch-fid's network with clean-fid's own resize and normalisation.

A peer prints one line of JSON when it is warm, and for each line on its standard input does the work once and prints {"images": ..,
"seconds": .., "result": ..}.
"""

import argparse
import json
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]


def make_weights(args):
    import torch

    if args.given:
        from safetensors.torch import load_file

        state = load_file(args.given)
    else:
        sys.path.insert(0, str(ROOT / "tests/stages/torch/fixtures"))
        import make_inception_v3

        state = make_inception_v3.drawn_state()
    torch.save(state, args.out)


def make_images(args):
    """Blobs of colour with edges and a little noise, each picture another."""
    import numpy as np
    from PIL import Image

    sizes = [tuple(map(int, size.split("x"))) for size in args.sizes.split(",")]
    folder = pathlib.Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(args.count):
        random = np.random.default_rng([args.seed, number])
        size = sizes[number % len(sizes)]
        coarse = Image.fromarray(random.integers(0, 256, (4 + number % 5, 5, 3), dtype=np.uint8))
        picture = np.asarray(coarse.resize(size, Image.BICUBIC)).astype(int)
        x, y = random.integers(0, size[0] // 2), random.integers(0, size[1] // 2)
        picture[y : y + size[1] // 3, x : x + size[0] // 3] = random.integers(0, 256, 3)
        picture += random.integers(-12, 13, picture.shape)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.png", compress_level=1)


def make_inputs(args):
    """`images`: bytes [N,299,299,3]; mean and covariance [2048] of two sets with a spectrum as features have it: it falls by 1e6."""
    import numpy as np
    from safetensors.numpy import save_file

    random = np.random.default_rng(0)
    tensors = {"images": random.integers(0, 256, (args.count, 299, 299, 3), dtype=np.uint8)}
    for name, count in (("a", 10000), ("b", 12000)):
        x = random.standard_normal((count, 2048)) * np.logspace(0, -3, 2048) + 0.01 * random.standard_normal(2048)
        tensors[f"mean_{name}"], tensors[f"covariance_{name}"] = x.mean(0), np.cov(x, rowvar=False)
    save_file(tensors, args.out)


def network(tool, weights):
    """The tool's network: uint8 [N,3,H,W] to features [N,2048]. The weights are a state dict's file."""
    import torch

    if tool == "torch-fidelity":
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        fidelity = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=weights)
        return lambda images: fidelity(images)[0]
    import pytorch_fid.inception

    state = torch.load(weights)
    pytorch_fid.inception.load_state_dict_from_url = lambda *_, **__: state
    if tool == "pytorch-fid":
        fid = pytorch_fid.inception.InceptionV3().eval()
        return lambda images: fid(images.float() / 255)[0].flatten(1)
    bare = pytorch_fid.inception.InceptionV3(resize_input=False, normalize_input=False).eval()
    return lambda images: bare((images.float() - 128) / 128)[0].flatten(1)  # as cleanfid.inception_torchscript.InceptionV3W


def fid(args):
    if args.tool == "pytorch-fid":
        import pytorch_fid.fid_score
        import torch

        network(args.tool, args.weights)
        return float(pytorch_fid.fid_score.calculate_fid_given_paths([args.a, args.b], args.batch_size, torch.device("cpu"), 2048, args.workers))
    if args.tool == "clean-fid":
        import cleanfid.fid
        import torch

        net = network(args.tool, args.weights)
        features = [cleanfid.fid.get_folder_features(folder, net, num_workers=args.workers, batch_size=args.batch_size, device=torch.device("cpu"),
                                                     mode="clean", verbose=False) for folder in (args.a, args.b)]
        return float(cleanfid.fid.fid_from_feats(*features))
    import torch_fidelity

    metrics = torch_fidelity.calculate_metrics(input1=args.a, input2=args.b, fid=True, cuda=False, batch_size=args.batch_size, cache=False, verbose=False,
                                               feature_extractor_weights_path=args.weights, save_cpu_ram=True)
    return float(metrics["frechet_inception_distance"])


def serve(work, images):
    """`work()` returns something that goes into JSON."""

    def measure():
        start = time.perf_counter()
        result = work()
        return {"images": images, "seconds": time.perf_counter() - start, "result": result}

    measure()  # warms up
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)


def serve_features(args):
    import torch
    from safetensors.torch import load_file

    net = network(args.tool, args.weights)
    images = load_file(args.inputs)["images"].permute(0, 3, 1, 2).contiguous()

    def work():
        with torch.no_grad():
            features = torch.cat([net(some) for some in images.split(args.batch_size)])
        return features[0].tolist()

    serve(work, len(images))


def serve_distance(args):
    import numpy as np
    from pytorch_fid.fid_score import calculate_frechet_distance
    from safetensors.numpy import load_file

    given = load_file(args.inputs)
    sets = [given[f"{what}_{name}"] for name in "ab" for what in ("mean", "covariance")]
    serve(lambda: float(np.real(calculate_frechet_distance(*sets))), 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    tools = ("pytorch-fid", "clean-fid", "torch-fidelity")

    def command(name, run, *positional):
        result = commands.add_parser(name)
        result.set_defaults(run=run)
        for argument in positional:
            result.add_argument(argument, choices=tools if argument == "tool" else None)
        return result

    command("weights", make_weights, "out").add_argument("--from", dest="given")
    images = command("images", make_images, "folder")
    images.add_argument("--count", type=int, required=True)
    images.add_argument("--sizes", default="128x128")
    images.add_argument("--seed", type=int, default=0)
    command("inputs", make_inputs, "out").add_argument("--count", type=int, default=50)
    one = command("fid", lambda args: print(json.dumps({"frechet_distance": fid(args)})), "tool", "a", "b")
    features = command("features", serve_features, "tool")
    for each in (one, features):
        each.add_argument("--weights", required=True)
        each.add_argument("--batch-size", type=int, default=50)
    one.add_argument("--workers", type=int, default=0)
    for each in (features, command("distance", serve_distance)):
        each.add_argument("--inputs", required=True)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
