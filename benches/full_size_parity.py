"""Compares tagbrush with timm on networks of the published sizes with random weights.

Builds a model folder of each WD v3 architecture (10,861 labels, 448 px), lets timm compute the logits
of a few noise pictures and the command line tool tag the same pictures, and prints the largest
difference. Needs the references of `core/tests/goldens/requirements.txt` and a release build:

    cargo build --release && python benches/full_size_parity.py [NAME...]
"""

import csv
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "core/tests/goldens"))
from make_timm import randomise, to_input  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[1]
LABELS = 10861
MODELS = {
    "vit": ("vit_base_patch16_224", dict(img_size=448, act_layer="gelu_tanh", class_token=False, fc_norm=False, global_pool="avg")),
    "swinv2": ("swinv2_base_window8_256", dict(img_size=448, window_size=14, act_layer="gelu_tanh")),
    "convnext": ("convnext_base", dict(act_layer="gelu_tanh")),
    "eva02-large": ("eva02_large_patch14_448", dict(img_size=448, ref_feat_shape=[32, 32])),
    "vit-large": ("vit_large_patch16_224", dict(img_size=448, act_layer="gelu_tanh", class_token=False, fc_norm=False, global_pool="avg")),
}


def write_folder(folder, architecture, args, model):
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    config = {
        "architecture": architecture,
        "num_classes": LABELS,
        "num_features": model.num_features,
        "model_args": args,
        "pretrained_cfg": {"input_size": [3, 448, 448], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (folder / "config.json").write_text(json.dumps(config))
    with open(folder / "selected_tags.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows([i, f"tag_{i}", 9 if i < 4 else 0 if i < 8110 else 4, 1] for i in range(LABELS))


def compare(name, pictures=2):
    architecture, args = MODELS[name]
    model = timm.create_model(architecture, num_classes=LABELS, **args).eval()
    randomise(model, torch.Generator().manual_seed(1))
    pixels = np.random.RandomState(1).randint(0, 256, (pictures, 448, 448, 3), dtype=np.uint8)
    with torch.inference_mode():
        logits = model(to_input(pixels))
        # Random networks can have logits too large for their probabilities to be compared.
        scale = min(1.0, 2.0 / logits.std().item())
        head = model.get_classifier()
        head.weight.mul_(scale)
        head.bias.mul_(scale)
        logits = logits * scale
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        write_folder(folder, architecture, args, model)
        del model
        paths = []
        for i, picture in enumerate(pixels):
            paths.append(folder / f"{i}.png")
            Image.fromarray(picture).save(paths[-1], compress_level=1)
        start = time.time()
        command = [ROOT / "target/release/tagbrush", "tag", *paths, "-m", folder, "-f", "jsonl", "-t", "0", "-q"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds = time.time() - start
    worst = 0.0
    for line, expected in zip(output.splitlines(), logits.double().numpy(), strict=True):
        answer = json.loads(line)
        scores = {**answer["ratings"], **answer["tags"], **answer["characters"]}
        for i, logit in enumerate(expected):
            p = scores.get(f"tag_{i}", 0.0)
            if 1e-4 < p < 1 - 1e-4:  # Elsewhere the probability has too few digits for the logit.
                worst = max(worst, abs(math.log(p / (1 - p)) - logit))
    print(f"{name:12} logits -{-logits.min():.1f}..{logits.max():.1f}, largest difference {worst:.1e} ({seconds:.1f} s with loading)", flush=True)
    return worst


if __name__ == "__main__":
    results = [compare(name) for name in sys.argv[1:] or MODELS]
    sys.exit(max(results) > 1e-4)
