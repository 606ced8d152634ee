#!/usr/bin/env python3
"""One evaluation of a UNet2DModel: halftone against PyTorch (diffusers, eager, channels_last) and, where it is installed, OpenVINO; float32, the same
number of threads, in turn (A B C A B C ...), so that a machine whose speed drifts is fair to all.

    pip install torch diffusers openvino      (openvino is optional)
    make && python3 bench/compare_pytorch.py models/cifar10 [--batch 1,16] [--threads 2] [--rounds 5] [--seconds 2]

Prints for each batch the median and least milliseconds of each, and the ratio to halftone's median, round by round."""
import argparse, importlib.util, json, os, statistics, subprocess, sys, tempfile

ap = argparse.ArgumentParser()
ap.add_argument("model")
ap.add_argument("--batch", default="1,16")
ap.add_argument("--threads", type=int, default=os.cpu_count())
ap.add_argument("--rounds", type=int, default=5)
ap.add_argument("--seconds", type=float, default=2)
ap.add_argument("--halftone", default="build/release/halftone")
ap.add_argument("--peer", help=argparse.SUPPRESS)  # this script runs itself once per measurement: a peer's peak memory is its own
ap.add_argument("--work", help=argparse.SUPPRESS)
a = ap.parse_args()


def torch_model(batch):
    import torch
    from diffusers import UNet2DModel
    torch.set_grad_enabled(False)
    torch.set_num_threads(a.threads)
    m = UNet2DModel.from_pretrained(os.path.join(a.model, "unet"), torch_dtype=torch.float32).eval().to(memory_format=torch.channels_last)
    x = torch.randn(batch, m.config.in_channels, m.config.sample_size, m.config.sample_size).contiguous(memory_format=torch.channels_last)
    return m, x, torch.tensor(500)


def measure_peer(name, batch):
    """Runs in a process of its own: prints times in ms and peak memory in MB."""
    import time
    if name == "pytorch":
        m, x, t = torch_model(batch)
        run = lambda: m(x, t, return_dict=False)
    else:
        import numpy as np, openvino as ov
        hint = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": a.threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        m = ov.Core().compile_model(os.path.join(a.work, "unet-b%d.xml" % batch), "CPU", hint)
        x, t, r = np.random.randn(*m.inputs[0].shape).astype(np.float32), np.array(500, np.int64), m.create_infer_request()
        run = lambda: r.infer([x, t], share_inputs=True, share_outputs=True)
    for _ in range(3):
        run()
    times, end = [], time.perf_counter() + a.seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    peak = next(int(l.split()[1]) / 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))
    print(json.dumps({"median_ms": statistics.median(times), "min_ms": min(times), "peak_mb": peak}))


def export_openvino(batches, folder):
    import openvino as ov, torch

    class Out(torch.nn.Module):
        def __init__(self, m):
            super().__init__()
            self.m = m

        def forward(self, x, t):
            return self.m(x, t, return_dict=False)[0]

    for b in batches:
        m, x, t = torch_model(b)
        ir = ov.convert_model(Out(m), example_input=(x.contiguous(), t), input=[(list(x.shape), ov.Type.f32), ([], ov.Type.i64)])
        ov.save_model(ir, os.path.join(folder, "unet-b%d.xml" % b), compress_to_fp16=False)


def measure(name, batch, folder):
    if name == "halftone":
        cmd = [a.halftone, "bench", a.model, "--batch", str(batch), "--threads", str(a.threads), "--seconds", str(a.seconds), "--json"]
        d = json.loads(subprocess.run(cmd, check=True, stdout=subprocess.PIPE).stdout)
        r = d["results"][0]
        return dict(r, peak_mb=d["peak_memory_mb"], peak_gflops=d["peak_gflops"])
    cmd = [sys.executable, __file__, a.model, "--threads", str(a.threads), "--seconds", str(a.seconds), "--batch", str(batch), "--peer", name, "--work", folder]
    env = dict(os.environ, OMP_NUM_THREADS=str(a.threads))
    return json.loads(subprocess.run(cmd, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env).stdout)


def main():
    batches = [int(b) for b in a.batch.split(",")]
    names = ["halftone", "pytorch"]
    with tempfile.TemporaryDirectory() as folder:
        if importlib.util.find_spec("openvino"):
            export_openvino(batches, folder)
            names.append("openvino")
        for batch in batches:
            got = {n: [] for n in names}
            for _ in range(a.rounds):
                for n in names:
                    got[n].append(measure(n, batch, folder))
            print("batch %d, %d threads, %d rounds of %g s in turn" % (batch, a.threads, a.rounds, a.seconds))
            for n in names:
                medians = [r["median_ms"] for r in got[n]]
                ratios = [r["median_ms"] / h["median_ms"] for r, h in zip(got[n], got["halftone"])]
                print("  %-9s median %8.2f ms  least %8.2f ms  peak %5.0f MB  x halftone %s (median %.2f)" % (
                    n, statistics.median(medians), min(r["min_ms"] for r in got[n]), max(r["peak_mb"] for r in got[n]),
                    " ".join("%.2f" % r for r in ratios), statistics.median(ratios)))
            shares = [r["products_share_of_peak"] for r in got["halftone"]]
            print("  halftone's matrix products: %s of the float32 peak measured beside them (%s GFLOP/s)" % (
                " ".join("%.0f %%" % (100 * s) for s in shares), " ".join("%.0f" % r["peak_gflops"] for r in got["halftone"])))


if a.peer:
    measure_peer(a.peer, int(a.batch))
else:
    main()
