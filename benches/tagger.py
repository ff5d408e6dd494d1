"""Speed of the tagger, files in and tags out, against onnxruntime and torch with their usual Pillow loading.

One random-weight ViT of the published size (10,861 labels, 448 px), JPEG files of two megapixels, f32, all
cores. Engines run in turn for several rounds, after their answers were compared. Writes
`results/tagger.json`. Nothing else should run on the machine.

    cargo build --release && python benches/tagger.py [ROUNDS]
"""

import json
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime
import timm
import torch
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "core/tests/goldens"))
from full_size_parity import LABELS, MODELS, ROOT, write_folder  # noqa: E402
from make_timm import randomise, to_input  # noqa: E402

IMAGES, BATCH = 16, 8
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 3


def pillow(path):
    """The tagger's preprocessing with Pillow, as the Python tools do it."""
    image = Image.open(path).convert("RGB")
    side = max(image.size)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(square.resize((448, 448), Image.BICUBIC))


def python_engine(forward):
    def run(paths):
        results = []
        for i in range(0, len(paths), BATCH):
            pixels = np.stack([pillow(path) for path in paths[i : i + BATCH]])
            results.append(forward(to_input(pixels)))
        return np.concatenate(results)

    return run


def tagbrush(folder):
    def run(paths):
        command = [ROOT / "target/release/tagbrush", "tag", *paths, "-m", folder, "-f", "jsonl", "-t", "0", "--batch-size", str(BATCH)]
        process = subprocess.run(command, check=True, capture_output=True, text=True)
        run.seconds = float(process.stderr.split(" images tagged in ")[1].split(" s")[0])  # Without loading.
        rows = []
        for line in process.stdout.splitlines():
            answer = json.loads(line)
            scores = {**answer["ratings"], **answer["tags"], **answer["characters"]}
            rows.append([scores.get(f"tag_{i}", 0.0) for i in range(LABELS)])
        return np.array(rows)

    return run


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
        torch.onnx.export(model, torch.zeros(1, 3, 448, 448), folder / "graph.onnx", input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "b"}, "y": {0: "b"}}, opset_version=17, dynamo=False)
        session = onnxruntime.InferenceSession(folder / "graph.onnx", providers=["CPUExecutionProvider"])

        def torch_forward(x):
            with torch.inference_mode():
                return torch.sigmoid(model(x)).numpy()

        engines = {
            "tagbrush": tagbrush(folder),
            "onnxruntime": python_engine(lambda x: 1 / (1 + np.exp(-session.run(None, {"x": x.numpy()})[0]))),
            "torch": python_engine(torch_forward),
        }
        answers = {name: run(paths) for name, run in engines.items()}
        worst = max(np.abs(answers["tagbrush"] - answers[name]).max() for name in ("onnxruntime", "torch"))
        # Decoders agree to the bit, resampling to one level in 256.
        assert worst < 0.02, worst
        rates = {name: [] for name in engines}
        for _ in range(ROUNDS):
            for name, run in engines.items():
                start = time.time()
                run(paths)
                seconds = getattr(run, "seconds", None) or time.time() - start
                rates[name].append(IMAGES / seconds)
    result = {
        "what": f"ViT-B/16, 448 px, f32, {IMAGES} JPEG files of 2 megapixels, batch {BATCH}, files in, tags out",
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"onnxruntime": onnxruntime.__version__, "torch": torch.__version__, "timm": timm.__version__},
        "largest difference of probabilities": float(worst),
        "images per second": {name: {"median": statistics.median(r), "all": r} for name, r in rates.items()},
    }
    path = ROOT / "benches/results/tagger.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
