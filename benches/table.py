"""Prints the README's tables from `results/cpu*.json` and `results/tagger*.json`: one for each machine.

    python benches/table.py
"""

import json
import pathlib

RESULTS = pathlib.Path(__file__).parent / "results"
NAMES = {"vit": "ViT-B", "swinv2": "SwinV2-B", "convnext": "ConvNeXt-B", "eva02-large": "EVA02-L"}


def cell(row, batch):
    return f"{row[batch]['images/s']:.2f}" if row and batch in row else "-"


def networks(path):
    data = json.loads(path.read_text())
    print(f"{data['what']}; {data['processor']}, {data['threads']} threads, {data['kernels'].split(':')[0]}\n")
    for batch in ("batch 1", "batch 8"):
        if not any(batch in row for model in data["models"].values() for row in model.values()):
            continue
        print(f"| {batch} | tagbrush f32 | onnxruntime f32 | OpenVINO f32 | torch f32 | tagbrush bf16 | OpenVINO bf16 | torch bf16 |")
        print("|---|---|---|---|---|---|---|---|")
        for name, rows in data["models"].items():
            keys = ["tagbrush f32", "onnxruntime f32", "openvino f32", "torch f32", "tagbrush bf16", "openvino default", "torch bf16"]
            print(f"| {NAMES[name]} | " + " | ".join(cell(rows.get(key), batch) for key in keys) + " |")
        print()
    vit = data["models"].get("vit", {})
    memory = {key: row["largest resident bytes"] / 1e6 for key, row in vit.items() if "largest resident bytes" in row}
    print("largest resident memory, ViT-B:", ", ".join(f"{key} {value:.0f} MB" for key, value in memory.items()))


def pipelines(path):
    data = json.loads(path.read_text())
    print(f"\n{data['what']}; {data['processor']}, {data['threads']} threads\n")
    print("| | images/s |\n|---|---|")
    for name, row in data["engines"].items():
        print(f"| {name} | {row['images/s']:.2f} |")


for path in sorted(RESULTS.glob("cpu*.json")):
    networks(path)
for path in sorted(RESULTS.glob("tagger*.json")):
    pipelines(path)
