"""Loads and runs an edit model of the published size in memory that is much smaller than it.

Writes the files of Qwen-Image-Edit-2511 with holes for weights (57.7 GB that take no disk), loads them with `max_memory`,
edits at small sizes, and compares what the process took with what it was allowed. Then damages copies of the folder and
prints what loading says about each, and how long it took to say it. Weights of zeros make grey pictures: it is names,
shapes, memory and time that are looked at.

With `--layers` the networks have fewer blocks of the same size, and the folder is not damaged: for large pictures, whose
edits take hours on a CPU, and need the same memory beside the weights.

    cargo build --release --example edit_worker && python benches/edit_full_size.py [--folder DIR] [--memory 12e9]
                                                                [--edits 1x256,4x256] [--steps 1] [--layers 60]
"""

import argparse
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time

import edit_models
from edit import Worker

TRANSFORMER = "transformer/diffusion_pytorch_model"


def linked(folder, to, *owned):
    """A copy whose files are links, but for those that are named."""
    for file in folder.rglob("*"):
        target = to / file.relative_to(folder)
        if file.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif str(file.relative_to(folder)) not in owned:
            target.symlink_to(file.resolve())
    return to


def reshape(file, to, tensor):
    """A copy of a sparse file in whose header one tensor is turned around."""
    with open(file, "rb") as source:
        (length,) = struct.unpack("<Q", source.read(8))
        header = json.loads(source.read(length))
    header[tensor]["shape"].reverse()
    text = json.dumps(header).encode()
    assert len(text) <= length
    with open(to, "wb") as out:
        out.write(struct.pack("<Q", length) + text.ljust(length))
        out.truncate(os.stat(file).st_size)


def damaged(folder, name, to):
    shard = f"{TRANSFORMER}-00003-of-00005.safetensors"
    linked(folder, to, shard)
    if name == "truncated shard":
        truncated(folder / shard, to / shard)
    elif name == "wrong shape":
        tensors = json.loads((folder / f"{TRANSFORMER}.safetensors.index.json").read_text())["weight_map"]
        tensor = next(t for t, file in tensors.items() if shard.endswith(file) and t.endswith("img_mlp.net.2.weight"))
        reshape(folder / shard, to / shard, tensor)
    return to


def truncated(file, to):
    with open(file, "rb") as source, open(to, "wb") as out:
        (length,) = struct.unpack("<Q", source.read(8))
        source.seek(0)
        out.write(source.read(8 + length))
        out.truncate(os.stat(file).st_size - 4096)


def refused(folder, memory):
    """What loading says about a folder."""
    worker = os.environ.get("EDIT_WORKER", edit_models.ROOT / "target/release/examples/edit_worker")
    start = time.time()
    process = subprocess.run([worker, folder, "bf16", str(memory)], input="", capture_output=True, text=True)
    assert process.returncode != 0, "a damaged folder was loaded"
    return time.time() - start, process.stderr.strip()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--memory", type=float, default=12e9)
    parser.add_argument("--edits", default="1x256,4x256")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--layers", type=int, default=60)
    arguments = parser.parse_args()
    memory = int(arguments.memory)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary) / "full"
        if not (folder / "model_index.json").exists():
            layers = arguments.layers
            edit_models.write(folder, layers=layers, text_layers=min(layers, 28), vision_layers=min(layers, 32))
        for name in ("missing shard", "truncated shard", "wrong shape") if arguments.layers == 60 else ():
            to = pathlib.Path(temporary) / name.replace(" ", "-")
            seconds, message = refused(damaged(folder, name, to), memory)
            print(f"{name}: {seconds:.1f} s: {message}", flush=True)
        if not arguments.edits:
            return 0
        worker = Worker(folder, "bf16", memory)
        _, seconds, peak = worker.ready.split()
        print(f"loaded in {float(seconds):.1f} s, peak {float(peak) / 1e9:.2f} GB of {memory / 1e9:.2f} GB", flush=True)
        worst = 0
        for edit in arguments.edits.split(","):
            count, size = map(int, edit.split("x"))
            took, first, _, peak = worker.edit(count, size, arguments.steps, 1)
            worst = max(worst, peak)
            print(
                f"{count} of {size} px, {arguments.steps} steps: {took:.1f} s, {first:.1f} s until the first step's end; "
                f"peak {peak / 1e9:.2f} GB", flush=True,
            )  # fmt: skip
        return int(worst > memory)


if __name__ == "__main__":
    sys.exit(main())
