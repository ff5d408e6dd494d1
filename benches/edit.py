"""What several edits in one run cost against the same edits one by one, on the CPU.

Writes a model of the published widths with random weights and few blocks, so that it fits, and with a narrow autoencoder,
which beside so few blocks would hide what they cost. Edits pictures in batches of one and of four, at several sizes: with all weights in memory, and with `--max-memory` so small that blocks are read
again in every step. Processes of all of these are asked in turn for several rounds; outputs of a batch are compared with
those that were made one by one. Also says how much memory each took of what it was allowed. Results go to
`results/edit.json`. Nothing else should run on the machine.

    cargo build --release --example edit_worker && python benches/edit.py [--sizes 256,512] [--rounds 2] [--layers 3]
"""

import argparse
import json
import os
import pathlib
import statistics
import tempfile

import numpy as np

import edit_models
from machine import machine
from process import Process

ROOT = edit_models.ROOT
PROMPT, SEED = "Make the sky blue.", 11
BATCH = 4


class Worker(Process):
    """A process of the Rust library: see `edit_worker.rs`."""

    def __init__(self, folder, precision, memory=0):
        worker = ROOT / "target/release/examples/edit_worker"
        super().__init__([os.environ.get("EDIT_WORKER", worker), folder, precision, int(memory)])

    def edit(self, count, size, steps, scale, file=""):
        """Seconds in all, until the first and until the last step, and the peak in bytes."""
        return [float(word) for word in self.ask(f"edit {count} {size}x{size} {size * size} {steps} {scale} {file}").split()]


def picture(width, height, number=0):
    """As `edit_worker.rs` draws it."""
    i = np.arange(width * height * 3, dtype=np.uint64).reshape(height, width, 3)
    y, x, c = np.meshgrid(np.arange(height) + number, np.arange(width), np.arange(3), indexing="ij")
    noise = ((i * 2654435761) % 2**32) >> 13
    return ((x * 5 + y * 3 + c * 80 + (noise % 64).astype(np.int64)) % 256).astype(np.uint8)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="256,512")
    parser.add_argument("--precisions", default="bf16,f32")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--cfg", type=float, default=4.0)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--memory", type=float, default=3.4e9, help="bytes, where weights do not stay")
    parser.add_argument("--folder", type=pathlib.Path, help="where the model is, or is written to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        results = measure(arguments, arguments.folder or pathlib.Path(temporary))
    (ROOT / "benches/results/edit.json").write_text(json.dumps(results, indent=1) + "\n")


def measure(arguments, folder):
    if not (folder / "model_index.json").exists():
        print("writing the model", flush=True)
        sizes = dict(layers=arguments.layers, text_layers=1, vision_layers=1, words=600, vae_dim=16)
        edit_models.write(folder, dtype="bf16", random=True, own={"vision_area": 384 * 384}, **sizes)
    results = {"machine": machine(), "batch": BATCH, "layers": arguments.layers, "steps": arguments.steps, "runs": []}
    for precision in arguments.precisions.split(","):
        for size in map(int, arguments.sizes.split(",")):
            for memory in (0, int(arguments.memory)):
                # In 32 bits a block is twice as large.
                memory *= 2 if precision == "f32" else 1
                results["runs"].append(compare(folder, precision, size, memory, arguments))
    return results


def compare(folder, precision, size, memory, arguments):
    """Batches of one and of four in turn."""
    worker = Worker(folder, precision, memory)
    seconds, peaks, first_outputs = {1: [], BATCH: []}, [], []
    made = folder / "made"
    for round_ in range(arguments.rounds + 1):
        for count in (1, BATCH) if round_ % 2 else (BATCH, 1):
            # The first round warms up, and its outputs are compared.
            took, _, _, peak = worker.edit(count, size, arguments.steps, arguments.cfg, "" if round_ else made)
            peaks.append(peak)
            if round_:
                seconds[count].append(took / count)
            else:
                first_outputs.append(np.fromfile(made, "<f4").reshape(count, -1)[0])
    assert (first_outputs[0] == first_outputs[1]).all(), "an edit gives something else in a batch"
    single, batch = statistics.median(seconds[1]), statistics.median(seconds[BATCH])
    worker.stop()
    assert not memory or max(peaks) <= memory, f"{max(peaks)} bytes of {memory}"
    run = dict(precision=precision, size=size, memory=memory, seconds=seconds, peak=max(peaks), gain=single / batch)
    print(
        f"{precision} {size} px, {f'{memory / 1e9:.1f} GB allowed' if memory else 'all in memory'}: one by one {single:.2f} s, "
        f"in a batch of {BATCH} {batch:.2f} s each, {single / batch:.2f} times as fast; peak {max(peaks) / 1e9:.2f} GB",
        flush=True,
    )
    return run


if __name__ == "__main__":
    main()
