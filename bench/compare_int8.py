#!/usr/bin/env python3
"""One evaluation of a quantized UNet2DModel: halftone (float32, and each quantized folder given) against OpenVINO's W8A8 of the same network, the same
number of threads, in turn, so that a machine whose speed drifts is fair to all.

    pip install torch diffusers openvino
    make && python3 bench/compare_int8.py models/cifar10 QUANTIZED... [--isa amx,avx512vnni] [--batch 1,16] [--threads 2] [--rounds 5] [--seconds 2]

OpenVINO's graph is the one that nncf's post-training quantization leaves: int8 weights by output channel and a u8 FakeQuantize on the input of every
convolution and linear map of at least 4096 weights; speed does not depend on the ranges, so they are fixed.  Where halftone is held to AVX-512 VNNI, so is
OpenVINO (ONEDNN_MAX_CPU_ISA)."""
import argparse, json, os, statistics, subprocess, sys, tempfile

ap = argparse.ArgumentParser()
ap.add_argument("model")
ap.add_argument("quantized", nargs="*")
ap.add_argument("--isa", default="amx,avx512vnni")
ap.add_argument("--batch", default="1,16")
ap.add_argument("--threads", type=int, default=os.cpu_count())
ap.add_argument("--rounds", type=int, default=5)
ap.add_argument("--seconds", type=float, default=2)
ap.add_argument("--halftone", default="build/release/halftone")
ap.add_argument("--peer", help=argparse.SUPPRESS)  # an IR: this script runs itself once per measurement
a = ap.parse_args()


def export(batch, path):
    import numpy as np, openvino as ov, torch
    from diffusers import UNet2DModel
    from openvino import opset13 as op

    class Out(torch.nn.Module):
        def __init__(self, m):
            super().__init__()
            self.m = m

        def forward(self, x, t):
            return self.m(x, t, return_dict=False)[0]

    m = UNet2DModel.from_pretrained(os.path.join(a.model, "unet"), torch_dtype=torch.float32).eval()
    x, t = torch.randn(batch, m.config.in_channels, m.config.sample_size, m.config.sample_size), torch.tensor(500)
    ir = ov.convert_model(Out(m), example_input=(x, t), input=[(list(x.shape), ov.Type.f32), ([], ov.Type.i64)])
    inputs = {}
    for node in ir.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in ("Convolution", "MatMul"):
            continue
        weight = node.input_value(1).get_node()
        while weight.get_type_name() == "Convert":
            weight = weight.input_value(0).get_node()
        if weight.get_type_name() != "Constant" or weight.data.size < 4096:
            continue
        w = weight.data.astype(np.float32)
        rows = kind == "Convolution" or node.get_attributes()["transpose_b"]
        scale = np.maximum(np.abs(w).max(axis=tuple(range(1, w.ndim)) if rows else tuple(range(w.ndim - 1)), keepdims=True), 1e-8) / 127
        codes = op.constant(np.clip(np.rint(w / scale), -127, 127).astype(np.int8))
        node.input(1).replace_source_output(op.multiply(op.convert(codes, "f32"), op.constant(scale.astype(np.float32))).output(0))
        source = node.input_value(0)
        key = (source.get_node().get_friendly_name(), source.get_index())
        if key not in inputs:
            low, high = (op.constant(np.array(v, np.float32)) for v in (-64 * 6 / 255, 191 * 6 / 255))
            inputs[key] = op.fake_quantize(source, low, high, low, high, 256)
        node.input(0).replace_source_output(inputs[key].output(0))
    ir.validate_nodes_and_infer_types()
    ov.save_model(ir, path, compress_to_fp16=True)


def measure_peer(path):
    import time, numpy as np, openvino as ov
    hint = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": a.threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    m = ov.Core().compile_model(path, "CPU", hint)
    x, t, r = np.random.randn(*m.inputs[0].shape).astype(np.float32), np.array(500, np.int64), m.create_infer_request()
    for _ in range(3):
        r.infer([x, t], share_inputs=True, share_outputs=True)
    times, end = [], time.perf_counter() + a.seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        r.infer([x, t], share_inputs=True, share_outputs=True)
        times.append((time.perf_counter() - start) * 1e3)
    peak = next(int(l.split()[1]) / 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))
    print(json.dumps({"median_ms": statistics.median(times), "min_ms": min(times), "peak_mb": peak}))


def measure(name, batch, isa, ir):
    if name != "openvino":
        cmd = [a.halftone, "bench", name, "--batch", str(batch), "--threads", str(a.threads), "--seconds", str(a.seconds), "--isa", isa, "--json"]
        d = json.loads(subprocess.run(cmd, check=True, stdout=subprocess.PIPE).stdout)
        return dict(d["results"][0], peak_mb=d["peak_memory_mb"])
    cmd = [sys.executable, __file__, a.model, "--threads", str(a.threads), "--seconds", str(a.seconds), "--peer", ir]
    env = dict(os.environ, OMP_NUM_THREADS=str(a.threads))
    if isa != "amx":
        env["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_BF16"
    return json.loads(subprocess.run(cmd, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env).stdout)


def main():
    names = ["openvino", a.model] + a.quantized
    with tempfile.TemporaryDirectory() as folder:
        for batch in (int(b) for b in a.batch.split(",")):
            ir = os.path.join(folder, "w8a8-b%d.xml" % batch)
            export(batch, ir)
            for isa in a.isa.split(","):
                got = {n: [] for n in names}
                for _ in range(a.rounds):
                    for n in names:
                        got[n].append(measure(n, batch, isa, ir))
                print("batch %d, %s, %d threads, %d rounds of %g s in turn" % (batch, isa, a.threads, a.rounds, a.seconds))
                for n in names:
                    to = [r["median_ms"] / o["median_ms"] for r, o in zip(got[n], got["openvino"])]
                    print("  %-28s median %8.2f ms  least %8.2f ms  peak %5.0f MB  x OpenVINO W8A8 %s (median %.2f)" % (
                        n, statistics.median(r["median_ms"] for r in got[n]), min(r["min_ms"] for r in got[n]), max(r["peak_mb"] for r in got[n]),
                        " ".join("%.2f" % r for r in to), statistics.median(to)))


if a.peer:
    measure_peer(a.peer)
else:
    main()
