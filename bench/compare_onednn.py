#!/usr/bin/env python3
"""Single layers of the CIFAR-10 model at batch 16: halftone's integer kernels (bench/layers) against oneDNN's int8 ones, the copy inside PyTorch (u8 codes,
s8 weights by output channel, float32 out, bias), in turn.  Times are the least of all rounds, layer by layer.
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
ap.add_argument("--peer", help=argparse.SUPPRESS)  # shapes: this script runs itself, and measures one for each line that it is sent
a = ap.parse_args()
BATCH, LAYERS = 16, 8  # the first of bench/layers.c
ROW = re.compile(r"\| +(\d+) x (\d+)x\d+ \| +(\d+) -> +(\d+) (linear |k)(\d) \|")


def measure_peer(shapes):
    import time, torch
    torch.set_grad_enabled(False)
    torch.set_num_threads(a.threads)
    ops = torch.ops.onednn

    def make(size, ci, co, kind, k):
        scale, zero, bias = torch.full((co,), 0.01), torch.zeros(co, dtype=torch.int32), torch.randn(co)
        if kind == "linear ":
            x = torch.randint(0, 256, (BATCH * size * size, ci), dtype=torch.uint8)
            w = ops.qlinear_prepack(torch.randint(-127, 128, (co, ci), dtype=torch.int8), list(x.shape))
            return lambda: ops.qlinear_pointwise(x, 0.02, 128, w, scale, zero, bias, 1.0, 0, torch.float32, "none", [], "")
        pad = [k // 2, k // 2]
        x = torch.randint(0, 256, (BATCH, ci, size, size), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
        w = ops.qconv_prepack(torch.randint(-127, 128, (co, ci, k, k), dtype=torch.int8), scale, 0.02, 128, [1, 1], pad, [1, 1], 1, list(x.shape))
        return lambda: ops.qconv2d_pointwise(x, 0.02, 128, w, scale, zero, bias, [1, 1], pad, [1, 1], 1, 1.0, 0, torch.float32, "none", [], "")

    layers = [make(*s) for s in shapes]
    for line in sys.stdin:
        f, best = layers[int(line)], 1e9
        f()
        end = time.perf_counter() + a.seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            f()
            best = min(best, time.perf_counter() - start)
        print(best * 1e6, flush=True)


def measure_ours(layer, weights):
    cmd = [a.layers, "--isa", a.isa, "--layer", str(layer + 1), "--weights", weights, "--seconds", str(a.seconds)]
    row = subprocess.run(cmd, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    batch, size, ci, co, kind, k = ROW.match(row).groups()
    assert int(batch) == BATCH
    return (int(size), int(ci), int(co), kind, int(k)), float(row.split("|")[4 + a.threads].split()[0])


def main():
    shapes = [measure_ours(i, "int8")[0] for i in range(LAYERS)]
    env = dict(os.environ, OMP_NUM_THREADS=str(a.threads))
    if a.isa != "amx":
        env["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_VNNI"
    cmd = [sys.executable, __file__, "--threads", str(a.threads), "--seconds", str(a.seconds), "--peer", json.dumps(shapes)]
    peer = subprocess.Popen(cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def measure(i, name):
        if name != "onednn":
            return measure_ours(i, name)[1]
        peer.stdin.write("%d\n" % i)
        peer.stdin.flush()
        return float(peer.stdout.readline())

    print("%d images, %s, %d thread%s, least of %d rounds" % (BATCH, a.isa, a.threads, "s" * (a.threads > 1), a.rounds))
    print("| layer | oneDNN int8, us | int8, us | x oneDNN | int4, us | x oneDNN |\n| --- | --- | --- | --- | --- | --- |")
    for i, (size, ci, co, kind, k) in enumerate(shapes):
        rounds = [[measure(i, name) for name in ("onednn", "int8", "int4")] for _ in range(a.rounds)]
        peers, eight, four = (min(r[j] for r in rounds) for j in range(3))
        print("| %dx%d %d -> %d %s%d | %.0f | %.0f | %.2f | %.0f | %.2f |" % (size, size, ci, co, kind, k, peers, eight, eight / peers, four, four / peers), flush=True)
    peer.stdin.close()
    peer.wait()


if a.peer:
    measure_peer(json.loads(a.peer))
else:
    main()
