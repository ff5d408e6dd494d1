"""Speed of the tagger, files in and tags out, against Python pipelines with their usual Pillow loading.

One random-weight ViT of the published size (10,861 labels, 448 px), JPEG files of two megapixels, all cores.
Engines run in turn for several rounds, after their answers were compared. Writes `results/tagger.json`.
Nothing else should run on the machine.

    cargo build --release && python benches/tagger.py [ROUNDS]
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime
import openvino
import timm
import torch
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "core/tests/goldens"))
from cpu import export, onnx_engine, openvino_engine, processor, timm_copy, torch_engine  # noqa: E402
from full_size_parity import LABELS, MODELS, ROOT, write_folder  # noqa: E402
from make_timm import randomise, to_input  # noqa: E402

IMAGES, BATCH = 32, 8
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5


def pillow(path):
    """The tagger's preprocessing with Pillow, as the Python tools do it."""
    image = Image.open(path).convert("RGB")
    side = max(image.size)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(square.resize((448, 448), Image.BICUBIC))


class Python:
    """Pillow, then an engine, batch after batch."""

    def __init__(self, forward):
        self.forward = forward

    def run(self, paths, _=None):
        start, results = time.perf_counter(), []
        for i in range(0, len(paths), BATCH):
            pixels = np.stack([pillow(path) for path in paths[i : i + BATCH]])
            results.append(np.asarray(self.forward(to_input(pixels))))
        return 1 / (1 + np.exp(-np.concatenate(results))), time.perf_counter() - start


class Tagbrush:
    """The command line tool; the seconds are its own and leave out loading the model. Every run is a new
    process, which the Python pipelines are not."""

    def __init__(self, folder, precision):
        self.command = [ROOT / "target/release/tagbrush", "tag", "-m", folder, "-f", "jsonl", "--batch-size", str(BATCH), "--dtype", precision]

    def run(self, paths, threshold="0.35"):
        process = subprocess.run([*self.command, "-t", threshold, *paths], check=True, capture_output=True, text=True)
        rows = []
        for line in process.stdout.splitlines():
            answer = json.loads(line)
            scores = {**answer["ratings"], **answer["tags"], **answer["characters"]}
            rows.append([scores.get(f"tag_{i}", 0.0) for i in range(LABELS)])
        return np.array(rows), float(process.stderr.split(" images tagged in ")[1].split(" s")[0])


def main():
    architecture, args = MODELS["vit"]
    model = timm.create_model(architecture, num_classes=LABELS, **args).eval()
    randomise(model, torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        write_folder(folder, architecture, args, model)
        random = np.random.RandomState(0)
        paths = []
        for i in range(IMAGES):
            small = Image.fromarray(random.randint(0, 256, (40, 54, 3), dtype=np.uint8))
            paths.append(folder / f"{i}.jpg")
            small.resize((1632, 1224), Image.BICUBIC).save(paths[-1], quality=88)
        graph = export(model, folder)
        copy = timm_copy(model, architecture, args)
        engines = {
            "tagbrush f32": Tagbrush(folder, "f32"),
            "tagbrush bf16": Tagbrush(folder, "bf16"),
            "onnxruntime f32": Python(onnx_engine(graph)),
            "openvino f32": Python(openvino_engine(graph, "f32")),
            "openvino default": Python(openvino_engine(graph, None)),
            "torch f32": Python(torch_engine(model, torch.float32)),
            "torch bf16": Python(torch_engine(copy, torch.bfloat16)),
        }
        expected, rows = engines["torch f32"].run(paths)[0], {}
        for name, engine in engines.items():
            worst = float(np.abs(engine.run(paths, "0")[0] - expected).max())
            # Decoders agree to the bit, resampling to one level in 256.
            assert worst < (0.02 if name.endswith("f32") else 0.1), (name, worst)
            rows[name] = {"largest difference of probabilities": worst, "all": []}
        for _ in range(ROUNDS):
            for name, engine in engines.items():
                time.sleep(0.1)  # Threads of the last engine that still spin.
                rows[name]["all"].append(IMAGES / engine.run(paths)[1])
        for name, row in rows.items():
            row["images/s"] = statistics.median(row["all"])
            print(f"{name:18} {row['images/s']:6.3f} images/s ({min(row['all']):.3f} to {max(row['all']):.3f})")
    result = {
        "what": f"ViT-B/16, 448 px, {IMAGES} JPEG files of 2 megapixels, batch {BATCH}, files in, tags out",
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "versions": {"onnxruntime": onnxruntime.__version__, "openvino": openvino.__version__, "torch": torch.__version__, "timm": timm.__version__},
        "engines": rows,
    }
    path = ROOT / "benches/results/tagger.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
