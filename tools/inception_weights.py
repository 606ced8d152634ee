#!/usr/bin/env python3
"""FID's InceptionV3 from the file that pytorch-fid publishes to the safetensors that `halftone fid` reads.

    curl -LO https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth
    python3 tools/inception_weights.py pt_inception-2015-12-05-6726825d.pth -o models/inception/pt_inception-2015-12-05-6726825d.safetensors

Names and numbers stay as they are.  Needs nothing but Python: a .pth is a zip of a pickle and the tensors' bytes, and of the pickle only what a table of
tensors needs is understood; anything else in it is refused, never run.  The published file is the network of TensorFlow's
inception-2015-12-05 (Apache-2.0), whose licence and weights are its authors'."""
import argparse, collections, hashlib, io, json, os, pickle, struct, sys, zipfile

TYPES = {"FloatStorage": ("F32", 4), "LongStorage": ("I64", 8), "HalfStorage": ("F16", 2), "DoubleStorage": ("F64", 8)}


class Tensor:
    def __init__(self, storage, offset, shape, stride):
        self.kind, self.key = storage
        self.offset, self.shape = offset, list(shape)
        want, n = [], 1
        for size in reversed(self.shape):
            want.insert(0, n)
            n *= size
        if n > 1 and list(stride) != want and any(s != w for s, w, d in zip(stride, want, self.shape) if d > 1):
            raise ValueError("a tensor that is not contiguous")
        self.count = n


def rebuild(storage, offset, shape, stride, *_):
    return Tensor(storage, offset, shape, stride)


class Reader(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in TYPES:
            return name
        raise pickle.UnpicklingError("the file holds more than tensors: %s.%s" % (module, name))

    def persistent_load(self, key):
        return key[1], key[2]  # ("storage", type, name, place, count)


def old_format(file):
    """Before PyTorch 1.6: pickles one after another (a number, a version, the machine), the table, the storages' names, then each storage's count and bytes."""
    for _ in range(3):
        Reader(file).load()
    table = Reader(file).load()
    kinds = {t.key: t.kind for t in table.values()}
    storages = {}
    for key in Reader(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        storages[key] = file.read(count * TYPES[kinds[key]][1])
    return table, storages.__getitem__


def read(path):
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            return old_format(io.BytesIO(file.read()))
    archive = zipfile.ZipFile(path)
    pickled = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
    folder = pickled[: -len("data.pkl")] + "data/"
    return Reader(io.BytesIO(archive.read(pickled))).load(), lambda key: archive.read(folder + key)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("pth")
    ap.add_argument("-o", "--output", required=True)
    a = ap.parse_args()
    digest = hashlib.sha256(open(a.pth, "rb").read()).hexdigest()
    if "6726825d" in os.path.basename(a.pth) and not digest.startswith("6726825d"):  # torch.hub puts a hash's start into names
        sys.exit("inception_weights.py: %s is damaged: its SHA-256 begins with %s, its name says 6726825d" % (a.pth, digest[:8]))
    table, storage = read(a.pth)
    header, parts, at = {"__metadata__": {"source": os.path.basename(a.pth), "sha256": digest}}, [], 0
    for name, t in sorted(table.items(), key=lambda item: (-TYPES[item[1].kind][1], item[0])):
        kind, size = TYPES[t.kind]
        data = storage(t.key)[t.offset * size : (t.offset + t.count) * size]
        if len(data) != t.count * size:
            sys.exit("inception_weights.py: %s: %s ends early" % (a.pth, name))
        header[name] = {"dtype": kind, "shape": t.shape, "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(os.path.dirname(a.output) or ".", exist_ok=True)
    with open(a.output + ".tmp", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(parts)
    os.replace(a.output + ".tmp", a.output)
    print("%s: %d tensors, %.1f MB" % (a.output, len(parts), at * 1e-6))


main()
