#!/usr/bin/env python3
"""`halftone fid` against pip's pytorch-fid, torch-fidelity, clean-fid and scikit-image on 1,000 CIFAR-10 test images (and 1,000 training images as the reference), the
same InceptionV3 in all: the published one if it is named, else one with random weights, which the packages are given instead of theirs.

    pip install torch pytorch-fid torch-fidelity clean-fid scikit-image safetensors
    make && python3 bench/compare_fid.py cifar10-test.zip cifar10-train.zip [--images 1000] [--weights pt_inception-2015-12-05-6726825d.pth]

The zips hold PNG or JPEG files.  Prints a row a metric: halftone's number, the package's, their relative difference."""
import argparse, glob, json, os, subprocess, sys, tempfile, zipfile

ap = argparse.ArgumentParser()
ap.add_argument("a")
ap.add_argument("b")
ap.add_argument("--images", type=int, default=1000)
ap.add_argument("--weights", help="pytorch-fid's file; default: random ones")
ap.add_argument("--threads", type=int, default=os.cpu_count())
ap.add_argument("--halftone", default="build/release/halftone")
args = ap.parse_args()

import numpy as np
import torch
from PIL import Image

torch.set_grad_enabled(False)
torch.set_num_threads(args.threads)


def extract(path, folder):
    """Evenly spaced pictures of a zip, as they are, in the order of their names."""
    with zipfile.ZipFile(path) as z:
        names = sorted(n for n in z.namelist() if n.lower().endswith((".png", ".jpg", ".jpeg")))
        for i in range(args.images):
            name = names[i * len(names) // args.images]
            with open(os.path.join(folder, "%05d%s" % (i, os.path.splitext(name)[1])), "wb") as f:
                f.write(z.read(name))


def network(folder):
    """pytorch-fid's network and its state; random weights get BatchNorm statistics that keep activations in range."""
    import pytorch_fid.inception as pf
    load = torch.nn.Module.load_state_dict
    if args.weights:
        state = torch.load(args.weights, map_location="cpu", weights_only=True)
        pf.load_state_dict_from_url = lambda *_, **__: state
    else:
        pf.load_state_dict_from_url = lambda *_, **__: None
        torch.nn.Module.load_state_dict = lambda m, s, *x, **k: None if s is None else load(m, s, *x, **k)
        torch.manual_seed(1)
    net = pf.fid_inception_v3()
    torch.nn.Module.load_state_dict = load
    if not args.weights:
        for name, p in net.named_parameters():
            if name.endswith("conv.weight"):
                torch.nn.init.kaiming_normal_(p, nonlinearity="relu")
    state = {k: v.clone().contiguous() for k, v in net.state_dict().items()}
    pf.load_state_dict_from_url = lambda *_, **__: state
    from safetensors.torch import save_file
    path = os.path.join(folder, "inception.safetensors")
    save_file(state, path)
    torch.save(state, os.path.join(folder, "inception.pth"))
    return path, os.path.join(folder, "inception.pth")


def halftone(weights, *sets, **options):
    cmd = [args.halftone, "fid", *sets, "--features", weights, "--json", "-q", "--threads", str(args.threads)]
    for k, v in options.items():
        cmd += ["--" + k.replace("_", "-"), str(v)]
    return json.loads(subprocess.run(cmd, check=True, stdout=subprocess.PIPE).stdout)["metrics"]


def with_pytorch_fid(a, b):
    import pytorch_fid.inception as pf
    from pytorch_fid import fid_score
    model = pf.InceptionV3([3]).eval()
    moments = [fid_score.compute_statistics_of_path(p, model, 50, 2048, torch.device("cpu"), 1) for p in (a, b)]
    return {"fid": fid_score.calculate_frechet_distance(*moments[0], *moments[1])}


def with_torch_fidelity(a, b, pth):
    import torch_fidelity
    m = torch_fidelity.calculate_metrics(input1=a, input2=b, cuda=False, isc=True, fid=True, kid=True, prc=True, verbose=False, feature_extractor="inception-v3-compat",
                                         feature_extractor_weights_path=pth, feature_layer_prc="2048",
                                         kid_subset_size=min(1000, args.images), samples_find_deep=False, cache=False, save_cpu_ram=True)
    return {"fid": m["frechet_inception_distance"], "kid": m["kernel_inception_distance_mean"], "kid_std": m["kernel_inception_distance_std"],
            "is": m["inception_score_mean"], "is_std": m["inception_score_std"], "precision": m["precision"], "recall": m["recall"]}


def with_clean_fid(a, b):
    """Its resize and its normalization, through the same network: its own downloads a TorchScript file."""
    import pytorch_fid.inception as pf
    from cleanfid.resize import make_resizer
    from pytorch_fid import fid_score
    model, resize = pf.InceptionV3([3], resize_input=False, normalize_input=False).eval(), make_resizer("PIL", False, "bicubic", (299, 299))
    moments = []
    for folder in (a, b):
        rows, files = [], sorted(glob.glob(folder + "/*"))
        for i in range(0, len(files), 50):
            x = np.stack([resize(np.array(Image.open(f).convert("RGB"))) for f in files[i : i + 50]])
            rows.append(model((torch.tensor(x, dtype=torch.float32).permute(0, 3, 1, 2) - 128) / 128)[0].flatten(1).numpy())
        rows = np.concatenate(rows).astype(np.float64)
        moments.append((rows.mean(0), np.cov(rows, rowvar=False)))
    return {"fid": fid_score.calculate_frechet_distance(*moments[0], *moments[1])}


def with_skimage(a, b):
    from skimage.metrics import peak_signal_noise_ratio as psnr, structural_similarity as ssim
    values = {"psnr": [], "ssim": []}
    for x, y in zip(sorted(glob.glob(a + "/*")), sorted(glob.glob(b + "/*"))):
        x, y = (np.array(Image.open(f).convert("RGB")) for f in (x, y))
        values["psnr"].append(psnr(x, y))
        values["ssim"].append(ssim(x, y, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False))
    return {k: float(np.mean(v)) for k, v in values.items()}


def report(package, ours, theirs):
    for k, v in theirs.items():
        print("%-28s %-10s %14.8g %14.8g   %.1e" % (package, k, ours[k], v, abs(ours[k] - v) / max(abs(v), 1e-30)), flush=True)


with tempfile.TemporaryDirectory() as work:
    a, b = os.path.join(work, "a"), os.path.join(work, "b")
    os.mkdir(a)
    os.mkdir(b)
    extract(args.a, a)
    extract(args.b, b)
    weights, pth = network(work)
    print("%d images against %d, InceptionV3 with %s weights" % (args.images, args.images, "the published" if args.weights else "random"))
    print("%-28s %-10s %14s %14s   %s" % ("package", "metric", "halftone", "package", "relative difference"))
    report("pytorch-fid", halftone(weights, a, b), with_pytorch_fid(a, b))
    report("torch-fidelity", halftone(weights, a, b, resize="tf1", metrics="fid,kid,is,pr", kid_size=min(1000, args.images)), with_torch_fidelity(a, b, pth))
    report("clean-fid's resize", halftone(weights, a, b, resize="bicubic"), with_clean_fid(a, b))
    report("scikit-image", halftone(weights, a, b, metrics="psnr,ssim"), with_skimage(a, b))
