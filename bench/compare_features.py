#!/usr/bin/env python3
"""Feature networks: images a second of halftone and of PyTorch (eager, channels_last and contiguous: the faster counts), the same weights, images and number of
threads, in turn, so that a machine whose speed drifts is fair to both.  First it checks that both give the same features.

    pip install torch pytorch-fid safetensors
    make benches && python3 bench/compare_features.py [--threads 2] [--batch 16] [--rounds 5] [--seconds 4]

InceptionV3 runs with random weights: the published ones are not shipped, and speed does not depend on them."""
import argparse, json, os, statistics, subprocess, sys, tempfile, time

ap = argparse.ArgumentParser()
ap.add_argument("--threads", type=int, default=os.cpu_count())
ap.add_argument("--batch", type=int, default=16)
ap.add_argument("--rounds", type=int, default=5)
ap.add_argument("--seconds", type=float, default=4)
ap.add_argument("--networks", default="resnet18_w24,inception")
ap.add_argument("--program", default="build/release/bench/features")
a = ap.parse_args()

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

torch.set_grad_enabled(False)
torch.set_num_threads(a.threads)


def resnet(folder):
    w = {k: v.float() for k, v in load_file(os.path.join(folder, "resnet18_w24.safetensors")).items()}
    conv = lambda x, n, stride=1, pad=1: F.conv2d(x, w[n + ".weight"], w[n + ".bias"], stride, pad)

    def run(x):
        x = F.relu(conv(x, "conv1"))
        for layer in range(1, 5):
            for block in range(2):
                n, stride = "layer%d.%d." % (layer, block), 2 if layer > 1 and block == 0 else 1
                h = conv(F.relu(conv(x, n + "conv1", stride)), n + "conv2")
                x = conv(x, n + "downsample.0", stride, 0) if n + "downsample.0.weight" in w else x
                x = F.relu(x + h)
        return x.mean((2, 3))

    def to(layout):
        for k in w:
            if w[k].ndim == 4:
                w[k] = w[k].contiguous(memory_format=layout)

    return run, to


def inception(folder):
    import pytorch_fid.inception as pf
    url, load = pf.load_state_dict_from_url, torch.nn.Module.load_state_dict  # no download: the weights stay random
    pf.load_state_dict_from_url = lambda *_, **__: None
    torch.nn.Module.load_state_dict = lambda m, s, *x, **k: None if s is None else load(m, s, *x, **k)
    torch.manual_seed(1)
    m = pf.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    state = pf.fid_inception_v3().state_dict()
    torch.nn.Module.load_state_dict, pf.load_state_dict_from_url = load, url
    own = {k: v for k, v in zip(sorted(state), [None] * len(state))}
    blocks = m.state_dict()
    names = ["Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3", "Conv2d_3b_1x1 Conv2d_4a_3x3", "Mixed_5b Mixed_5c Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e",
             "Mixed_7a Mixed_7b Mixed_7c"]
    for b, row in enumerate(names):
        for i, n in enumerate(row.split()):
            for k, v in blocks.items():
                if k.startswith("blocks.%d.%d." % (b, i)):
                    own[n + k[len("blocks.%d.%d" % (b, i)):]] = v.contiguous()
    own.update({"fc.weight": state["fc.weight"], "fc.bias": state["fc.bias"]})
    path = os.path.join(folder, "random.safetensors")
    save_file({k: v.clone() for k, v in own.items() if v is not None}, path)
    return path, lambda x: m(x)[0].flatten(1), lambda layout: m.to(memory_format=layout)


def time_torch(run, x):
    run(x)
    times, end = [], time.perf_counter() + a.seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        run(x)
        times.append(time.perf_counter() - start)
    return statistics.median(times), min(times)


def halftone(path, check=None):
    cmd = [a.program, path, "-t", str(a.threads), "-n", str(a.batch), "-s", str(a.seconds if not check else 0)]
    got = json.loads(subprocess.run(cmd + (["-c", check] if check else []), check=True, stdout=subprocess.PIPE).stdout)
    return got["median_s"], got["least_s"]


def compare(name, path, run, to, folder):
    check = os.path.join(folder, "check.safetensors")
    halftone(path, check)
    t = load_file(check)
    x = t["input"].permute(0, 3, 1, 2)
    error = ((run(x.contiguous()) - t["features"]).norm() / t["features"].norm()).item()
    rows = {"halftone": [], "pytorch": []}
    layouts = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    for _ in range(a.rounds):
        rows["halftone"].append(halftone(path))
        best = None
        for layout in layouts.values():
            to(layout)
            got = time_torch(run, x.contiguous(memory_format=layout))
            best = got if best is None or got[0] < best[0] else best
        rows["pytorch"].append(best)
    print("%s, %d images a call, %d threads, %d rounds in turn; features differ by %.1e" % (name, a.batch, a.threads, a.rounds, error))
    for n, r in rows.items():
        ratios = [h[0] / m[0] for m, h in zip(r, rows["halftone"])]
        print("  %-9s %8.1f images/s median, %8.1f best; %.2f of halftone's (rounds: %s)" % (
            n, a.batch / statistics.median(m for m, _ in r), a.batch / min(l for _, l in r), statistics.median(ratios), " ".join("%.2f" % v for v in ratios)))


with tempfile.TemporaryDirectory() as folder:
    for name in a.networks.split(","):
        if name == "inception":
            path, run, to = inception(folder)
        else:
            path = "models/cifar10/features"
            run, to = resnet(path)
        compare(name, path, run, to, folder)
