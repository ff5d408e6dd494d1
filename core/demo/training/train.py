"""Trains the demo tagger and writes its model folder.

    python core/demo/training/train.py --out core/demo/tagger

Draws its own pictures, so it needs no data. The weights are saved before they
are measured; the model card is written last, from the measurements."""

import argparse
import csv
import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import card
from pictures import CHARACTERS, GENERAL, RATINGS, VOCABULARY, picture
from preprocess import pixels

SIDE = 96
ARCHITECTURE = "vit_base_patch16_224"
MODEL_ARGS = {
    "act_layer": "gelu_tanh",
    "class_token": False,
    "depth": 4,
    "embed_dim": 96,
    "fc_norm": False,
    "global_pool": "avg",
    "img_size": SIDE,
    "num_heads": 3,
    "patch_size": 12,
}
THRESHOLD = 0.35
SHIFT = 3  # how far pictures move, in pixels
HELD_OUT = 1_000_000_000  # first seed of the pictures that are never trained on


def build(classes):
    return timm.create_model(ARCHITECTURE, num_classes=classes, **MODEL_ARGS)


def sample(seed):
    drawn = picture(seed, scale=2)
    return pixels(drawn.image, SIDE), drawn.labels()


def draw_pool(seeds, workers):
    """Pictures of these seeds as bytes, and their labels."""
    x = np.empty((len(seeds), 3, SIDE, SIDE), dtype=np.uint8)
    y = np.empty((len(seeds), len(VOCABULARY)), dtype=np.uint8)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for k, (image, labels) in enumerate(pool.imap(sample, seeds, chunksize=64)):
            x[k], y[k] = image, labels
    return torch.from_numpy(x), torch.from_numpy(y)


def pool_of(seeds, workers, cache):
    """As `draw_pool`, kept in the folder `cache` where one is given."""
    if cache is None:
        return draw_pool(seeds, workers)
    path = Path(cache) / f"pool-{seeds.start}-{len(seeds)}-{SIDE}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        x, y = draw_pool(seeds, workers)
        np.savez(path, x=x, y=y)
    with np.load(path) as kept:
        return torch.from_numpy(kept["x"]), torch.from_numpy(kept["y"])


def ordered(labels):
    """The columns of a model folder: ratings as they are, then general tags
    and characters by descending count. Returns (column, name, category, count)."""
    counts = dict(zip(VOCABULARY, labels.sum(0, dtype=torch.int64).tolist()))
    by_count = lambda names: sorted(names, key=lambda n: (-counts[n], n))
    rows = [(n, 9) for n in RATINGS] + [(n, 0) for n in by_count(GENERAL)] + [(n, 4) for n in by_count(CHARACTERS)]
    return [(VOCABULARY.index(n), n, category, counts[n]) for n, category in rows]


def normalised(x):
    return (x.float() / 255 - 0.5) / 0.5


def varied(x, generator):
    """A batch as the model trains on it: moved a little, mirrored or not, a
    little lighter or darker, with a little noise as compression leaves it."""
    left, top = torch.randint(0, 2 * SHIFT + 1, (2,), generator=generator).tolist()
    x = F.pad(normalised(x), (SHIFT,) * 4, mode="replicate")[..., top : top + SIDE, left : left + SIDE]
    n = len(x)
    mirror = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
    x = torch.where(mirror, x.flip(3), x)
    gain = 1 + 0.05 * torch.randn(n, 1, 1, 1, generator=generator)
    noise = torch.randn(x.shape[1:], generator=generator) * 0.08 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    return ((x - 1) * gain + 1 + noise).clamp(-1, 1)  # white stays white


def optimisers(model, rate):
    """Muon for the matrices inside the blocks, AdamW for everything else."""
    matrices = [p for n, p in model.named_parameters() if n.startswith("blocks.") and p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, ns_steps=4, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule(step, steps):
    """The part of the full rate that applies: a short warm-up, level for nearly
    half of the steps, down slowly, and down to 1 % in the last fifth."""
    return float(np.interp((step + 1) / steps, [0, 0.009, 0.45, 0.81, 1], [0, 1, 1, 0.6, 0.01]))


def train(model, x, y, steps, batch, rate):
    generator = torch.Generator().manual_seed(7)
    opts = optimisers(model, rate)
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    order, at = torch.randperm(len(x), generator=generator), 0
    began, shown = time.time(), 0.0
    model.train()
    for step in range(steps):
        if at + batch > len(x):
            order, at = torch.randperm(len(x), generator=generator), 0
        index, at = order[at : at + batch], at + batch
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = rate * schedule(step, steps)
        logits = model(varied(x[index], generator))
        loss = F.binary_cross_entropy_with_logits(logits, y[index].float(), reduction="none").sum(1).mean()
        for opt in opts:
            opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
        keep = min(0.998, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - keep)
        shown += loss.item()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{steps} loss {shown / 100:.3f} {1000 * (time.time() - began) / (step + 1):.0f} ms/step", flush=True)
            shown = 0.0
    model.load_state_dict(average)
    return time.time() - began


@torch.no_grad()
def probabilities(model, x):
    model.eval()
    return torch.cat([model(normalised(part)).sigmoid() for part in x.split(256)])


def f1(found, true):
    hits = (found & true).sum(0).double()
    return (2 * hits / (found.sum(0) + true.sum(0)).clamp(min=1)).tolist()


def measure(model, x, y, rows):
    """How well the model does at the threshold on these pictures."""
    scores, true = probabilities(model, x), y.bool()
    found = scores > THRESHOLD
    tags = torch.tensor([category != 9 for _, _, category, _ in rows])
    a, b = found[:, tags], true[:, tags]
    hits = (a & b).sum().item()
    return {
        "pictures": len(x),
        "micro_f1": 2 * hits / (a.sum() + b.sum()).item(),
        "precision": hits / a.sum().item(),
        "recall": hits / b.sum().item(),
        "macro_f1": float(np.mean(f1(a, b))),
        "all_tags_right": (a == b).all(1).float().mean().item(),
        "rating_right": (scores[:, ~tags].argmax(1) == true[:, ~tags].float().argmax(1)).float().mean().item(),
        "per_tag": {row[1]: value for row, value in zip(rows, f1(found, true))},
    }


def config_of(classes):
    """The model's config.json, in the form the timm hub uses."""
    return {
        "architecture": ARCHITECTURE,
        "num_classes": classes,
        "num_features": MODEL_ARGS["embed_dim"],
        "global_pool": "avg",
        "model_args": MODEL_ARGS,
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, SIDE, SIDE],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "num_classes": classes,
            "pool_size": None,
            "first_conv": None,
            "classifier": None,
        },
    }


def write_folder(out, model, rows):
    out.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, out / "model.safetensors", {"format": "pt"})
    (out / "config.json").write_text(json.dumps(config_of(len(rows)), indent=2) + "\n")
    with open(out / "selected_tags.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["tag_id", "name", "category", "count"])
        for k, (_, name, category, count) in enumerate(rows):
            table.writerow([k + 1, name, category, count])


def rounded_model(out, classes):
    """The model as it was written to disk."""
    model = build(classes)
    model.load_state_dict({k: v.float() for k, v in load_file(out / "model.safetensors").items()})
    return model


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, required=True, help="the model folder to write")
    options.add_argument("--pictures", type=int, default=60_000, help="pictures to train on")
    options.add_argument("--held-out", type=int, default=4_000, help="pictures to measure on")
    options.add_argument("--steps", type=int, default=6_600)
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--rate", type=float, default=5e-3)
    options.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that draw, threads that train")
    options.add_argument("--cache", help="a folder to keep the drawn pictures in")
    args = options.parse_args()

    torch.manual_seed(7)
    torch.set_num_threads(args.workers)
    x, y = pool_of(range(args.pictures), args.workers, args.cache)
    held_x, held_y = pool_of(range(HELD_OUT, HELD_OUT + args.held_out), args.workers, args.cache)
    rows = ordered(y)
    columns = [column for column, *_ in rows]
    y, held_y = y[:, columns], held_y[:, columns]

    model = build(len(rows))
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(rows)} classes", flush=True)
    seconds = train(model, x, y, args.steps, args.batch, args.rate)
    write_folder(args.out, model, rows)

    exact = measure(model, held_x, held_y, rows)
    result = measure(rounded_model(args.out, len(rows)), held_x, held_y, rows)
    print(f"{seconds:.0f} s of training, micro-F1 {exact['micro_f1']:.4f}, as written in f16 {result['micro_f1']:.4f}")
    for name, value in sorted(result["per_tag"].items(), key=lambda item: item[1])[:25]:
        print(f"  {name}: {value:.3f}")
    parameters = sum(p.numel() for p in model.parameters())
    text = card.text(rows, result, exact, seconds, args, parameters, config_of(len(rows)), THRESHOLD)
    (args.out / "README.md").write_text(text)


if __name__ == "__main__":
    main()
