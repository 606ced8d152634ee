#!/usr/bin/env python3
"""Single layers of the CIFAR-10 model at batch 16: halftone's integer kernels (bench/layers) against oneDNN's int8 ones, the copy inside PyTorch (u8 codes,
s8 weights by output channel, float32 out, bias), in turn.  Times are the least of all rounds.
With two threads on processors that others use as well, PyTorch's wait for each other by spinning, which says nothing about kernels: hence one.

    pip install torch
    make benches && python3 bench/compare_onednn.py [--isa amx|avx512vnni] [--threads 1|2] [--rounds 3] [--seconds 0.1]"""
import argparse, json, os, re, subprocess, sys

ap = argparse.ArgumentParser()
ap.add_argument("--isa", default="amx", choices=["amx", "avx512vnni"])
ap.add_argument("--threads", type=int, default=1, choices=[1, 2])
ap.add_argument("--rounds", type=int, default=3)
ap.add_argument("--seconds", type=float, default=0.1, help="a layer and round")
ap.add_argument("--layers", default="build/release/bench/layers")
ap.add_argument("--peer", help=argparse.SUPPRESS)  # shapes: this script runs itself once a round
a = ap.parse_args()
BATCH, ROW = 16, re.compile(r"\| +(\d+) x (\d+)x\d+ \| +(\d+) -> +(\d+) (linear |k)(\d) \|")


def measure_peer(shapes):
    import time, torch
    torch.set_grad_enabled(False)
    torch.set_num_threads(a.threads)
    ops, times = torch.ops.onednn, []
    for size, ci, co, kind, k in shapes:
        scale, zero, bias = torch.full((co,), 0.01), torch.zeros(co, dtype=torch.int32), torch.randn(co)
        if kind == "linear ":
            x = torch.randint(0, 256, (BATCH * size * size, ci), dtype=torch.uint8)
            w = ops.qlinear_prepack(torch.randint(-127, 128, (co, ci), dtype=torch.int8).t().contiguous().t(), list(x.shape))
            f = lambda: ops.qlinear_pointwise(x, 0.02, 128, w, scale, zero, bias, 1.0, 0, torch.float32, "none", [], "")
        else:
            pad = [k // 2, k // 2]
            x = torch.randint(0, 256, (BATCH, ci, size, size), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
            w = ops.qconv_prepack(torch.randint(-127, 128, (co, ci, k, k), dtype=torch.int8), scale, 0.02, 128, [1, 1], pad, [1, 1], 1, list(x.shape))
            f = lambda: ops.qconv2d_pointwise(x, 0.02, 128, w, scale, zero, bias, [1, 1], pad, [1, 1], 1, 1.0, 0, torch.float32, "none", [], "")
        for _ in range(3):
            f()
        best, end = 1e9, time.perf_counter() + a.seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            f()
            best = min(best, time.perf_counter() - start)
        times.append(best * 1e6)
    print(json.dumps(times))


def measure_ours(weights):
    cmd = [a.layers, "--isa", a.isa, "--batch", str(BATCH), "--weights", weights, "--seconds", str(a.seconds)]
    rows = [l for l in subprocess.run(cmd, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines() if ROW.match(l)]
    found = []
    for row in rows:
        _, size, ci, co, kind, k = ROW.match(row).groups()
        found.append(((int(size), int(ci), int(co), kind, int(k)), float(row.split("|")[4 + a.threads].split()[0])))
    return found


def main():
    best = {}
    for _ in range(a.rounds):
        for weights in ("int8", "int4"):
            for shape, us in measure_ours(weights):
                best[shape, weights] = min(us, best.get((shape, weights), 1e9))
        shapes = [s for s, w in best if w == "int8"]
        env = dict(os.environ, OMP_NUM_THREADS=str(a.threads))
        if a.isa != "amx":
            env["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_VNNI"
        cmd = [sys.executable, __file__, "--threads", str(a.threads), "--seconds", str(a.seconds), "--peer", json.dumps(shapes)]
        for shape, us in zip(shapes, json.loads(subprocess.run(cmd, check=True, stdout=subprocess.PIPE, env=env).stdout)):
            best[shape, "onednn"] = min(us, best.get((shape, "onednn"), 1e9))
    print("%d images, %s, %d thread%s, least of %d rounds" % (BATCH, a.isa, a.threads, "s" * (a.threads > 1), a.rounds))
    print("| layer | oneDNN int8, us | int8, us | x oneDNN | int4, us | x oneDNN |\n| --- | --- | --- | --- | --- | --- |")
    for s in shapes:
        size, ci, co, kind, k = s
        print("| %dx%d %d -> %d %s%d | %.0f |" % (size, size, ci, co, kind, k, best[s, "onednn"]) + "|".join(
            " %.0f | %.2f " % (best[s, w], best[s, w] / best[s, "onednn"]) for w in ("int8", "int4")) + "|")


if a.peer:
    measure_peer(json.loads(a.peer))
else:
    main()
