"""What the Python and Node packages cost on top of the Rust library, and what threads and many calls do to it.

- Files to tags in batches, from Python (and from Node, where its package is built) against the Rust library
  (`worker.rs`): a ViT-B of 224 px with random weights in the published layout (10,861 labels), and the demo model, whose
  calls are so short that overhead shows. In turn, for several rounds, after the answers were compared.
- One tagger shared by eight Python threads against one thread.
- Resident memory after 1,000 and after 10,000 calls of `tag`.

Prints ratios with their spread and writes `results/bindings.json`. Nothing else should run on the machine.

    make wheel test-node && cargo build --release --example worker && target/python/bin/python benches/bindings.py [--rounds 7]
"""

import argparse
import csv
import json
import os
import pathlib
import statistics
import struct
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tagbrush
from process import Process

ROOT = pathlib.Path(__file__).resolve().parents[1]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
LABELS, WIDTH, BLOCKS, SIDE, PATCH = 10_861, 768, 12, 224, 16
THREADS = 8


def write_vit(folder):
    """A folder as the WD v3 ViT is published, of 224 px, with random weights."""
    tensors = {
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "pos_embed": (1, (SIDE // PATCH) ** 2, WIDTH),
    }
    for i in range(BLOCKS):
        layers = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
        layers |= {"mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
        for name, shape in layers.items():
            tensors[f"blocks.{i}.{name}.weight"], tensors[f"blocks.{i}.{name}.bias"] = shape, shape[:1]
        for name in ("norm1", "norm2"):
            tensors[f"blocks.{i}.{name}.weight"] = tensors[f"blocks.{i}.{name}.bias"] = (WIDTH,)
    tensors["norm.weight"] = tensors["norm.bias"] = (WIDTH,)
    tensors["head.weight"], tensors["head.bias"] = (LABELS, WIDTH), (LABELS,)
    header, end = {}, 0
    for name, shape in tensors.items():
        start, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(0)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors.items():
            centre = 1 if "norm" in name and name.endswith("weight") else 0
            spread = 0.1 if name == "head.weight" else 0.04
            file.write((centre + spread * random.standard_normal(shape, dtype=np.float32)).astype("<f4").tobytes())
    config = {
        "architecture": "vit_base_patch16_224",
        "num_classes": LABELS,
        "num_features": WIDTH,
        "model_args": {"act_layer": "gelu_tanh", "class_token": False, "fc_norm": False, "global_pool": "avg"},
        "pretrained_cfg": {"input_size": [3, SIDE, SIDE], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (folder / "config.json").write_text(json.dumps(config))
    with open(folder / "selected_tags.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows([i, f"tag_{i}", 9 if i < 4 else 0 if i < 8110 else 4, 1] for i in range(LABELS))


def write_pictures(folder, count, width, height):
    """JPEG files of coarse noise."""
    random = np.random.default_rng(1)
    for i in range(count):
        coarse = random.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        tagbrush.Image(coarse.repeat(16, 0).repeat(16, 1)).save(folder / f"{i:05}.jpg")
    return sorted(folder.glob("*.jpg"))


def parsed(line):
    """Tags with their scores as `float32`: languages write the same number differently."""
    return {key: {name: np.float32(score) for name, score in tags.items()} for key, tags in json.loads(line).items()}


class Python:
    """This process."""

    def __init__(self, model):
        self.tagger = tagbrush.Tagger.load(model, dtype="f32")

    def seconds(self, files, batch, threshold):
        paths = files.read_text().splitlines()
        tagger = self.tagger.with_batch_size(batch)
        start = time.perf_counter()
        tags = tagger.tag_batch(paths, threshold=threshold)
        seconds = time.perf_counter() - start
        assert len(tags) == len(paths)
        return seconds

    def answers(self, files, threshold, _):
        tags = self.tagger.tag_batch(files.read_text().splitlines(), threshold=threshold)
        return [parsed(answer.to_json()) for answer in tags]


class Worker(Process):
    """A process of the Rust library or of Node: see `worker.rs`."""

    def seconds(self, files, batch, threshold):
        return float(self.ask(f"tag {files} {batch} {threshold}"))

    def answers(self, files, threshold, out):
        self.ask(f"tags {files} {threshold} {out}")
        return [parsed(line) for line in out.read_text().splitlines()]


def engines(model):
    """By name. Node takes part where its package is built."""
    made = {"rust": Worker([TARGET / "release/examples/worker", model, "f32"]), "python": Python(model)}
    node = ROOT / "benches/bindings_worker.mjs"
    if (ROOT / "bindings-node/dist/index.mjs").exists():
        made["node"] = Worker(["node", node, model, "f32"])
    return made


def spread(values):
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def compare(name, model, paths, batch, rounds, folder):
    """Each engine's time over that of Rust in the same round."""
    files = folder / f"{name}.txt"
    files.write_text("".join(f"{path}\n" for path in paths))
    made = engines(model)
    scores = np.sort(made["python"].tagger.scores(paths[:1])[0])
    # About thirty tags of each picture, as with a trained model.
    threshold = round(float(scores[-30]), 6) if name != "demo" else tagbrush.DEFAULT_THRESHOLD
    expected = made["rust"].answers(files, threshold, folder / "answers")
    for engine, worker in made.items():
        assert worker.answers(files, threshold, folder / "answers") == expected, f"{engine} answers something else"
    kept = statistics.mean(len(answer["tags"]) for answer in expected)
    rows = {engine: [] for engine in made}
    for round_ in range(rounds):
        # Whoever is first in a round may find the machine in another state.
        order = list(made)[round_ % len(made) :] + list(made)[: round_ % len(made)]
        for engine in order:
            rows[engine].append(made[engine].seconds(files, batch, threshold))
    for worker in made.values():
        if isinstance(worker, Worker):
            worker.stop()
    print(f"{name}: {len(paths)} files, batch {batch}, {kept:.0f} tags each, {spread([len(paths) / s for s in rows['rust']])} images/s from Rust")
    ratios = {}
    for engine in made.keys() - {"rust"}:
        ratios[engine] = [ours / theirs for ours, theirs in zip(rows[engine], rows["rust"], strict=True)]
        print(f"  {engine} takes {spread(ratios[engine])} times as long as Rust")
    return {"files": len(paths), "batch": batch, "tags": kept, "seconds": rows, "times as long as rust": ratios}


def threads(tagger, images, rounds):
    """Pictures per second of eight threads that share a tagger, over those of one thread."""

    def run(workers):
        shares = [images[i::workers] for i in range(workers)]
        with ThreadPoolExecutor(workers) as pool:
            start = time.perf_counter()
            list(pool.map(lambda share: [tagger.tag(image) for image in share], shares))
            return len(images) / (time.perf_counter() - start)

    run(THREADS)
    ratios = []
    for i in range(rounds):
        rates = {workers: run(workers) for workers in ((1, THREADS) if i % 2 else (THREADS, 1))}
        ratios.append(rates[THREADS] / rates[1])
    print(f"{THREADS} threads that share a tagger tag {spread(ratios)} times as many pictures as one")
    return ratios


def resident():
    """This process's resident memory in bytes."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(tagger, paths):
    """Resident bytes after so many calls of `tag`."""
    after = {}
    for i in range(1, 10_001):
        tagger.tag(paths[i % len(paths)])
        if i in (1_000, 10_000):
            after[i] = resident()
    print(f"resident after 1,000 calls of tag: {after[1_000] / 1e6:.1f} MB, after 10,000: {after[10_000] / 1e6:.1f} MB")
    return after


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--files", type=int, default=16, help="for the ViT; 60 times as many for the demo model")
    args = parser.parse_args()
    demo = sorted(path for path in (ROOT / "core/demo/images").iterdir() if path.suffix != ".json")
    results = {}
    tagger = tagbrush.Tagger.load("demo", dtype="f32")
    results["resident bytes after calls"] = memory(tagger, demo)
    results["threads over one"] = threads(tagger, demo * 2 * args.files, args.rounds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for name in ("large", "small"):
            (folder / name).mkdir()
        small = write_pictures(folder / "small", 60 * args.files, 256, 192)
        results["demo"] = compare("demo", "demo", small, 64, args.rounds, folder)
        large = write_pictures(folder / "large", args.files, 1632, 1216)
        write_vit(folder)
        results["vit"] = compare("vit", folder, large, 8, args.rounds, folder)
    path = ROOT / "benches/results/bindings.json"
    path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
