"""Measures the demo edit model on pictures it was never trained on.

    python core/demo/training/edit_evaluate.py --model core/demo/edit --card core/demo/edit/README.md

The edits are made by the pipeline of diffusers from the stored weights, in single
precision. Two things are set around it: the sizes of reference pictures, which it
has built in, and the kinds of the tokens, which it does not hand to the text
encoder, so that their positions would not be those the model was trained with."""

import argparse
import importlib
import json
import math
from pathlib import Path

import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as plus
import numpy as np
import torch

import edit_autoencoder as single
import edit_card
from edit_judge import judge
from edit_pictures import HELD_OUT, SQUARE, TALL, WIDE, draw, pair
from edit_words import EDITS

PARTS = ("transformer", "vae", "scheduler", "tokenizer", "text_encoder", "processor")
COUNTS = {SQUARE: 320, WIDE: 40, TALL: 40}
VARIED = 60  # square pictures with two shapes that are edited in other ways too


def load(folder):
    """The pipeline of a model folder, with the folder's own reference sizes."""
    index = json.loads((folder / "model_index.json").read_text())
    sizes = index["tagbrush"]
    parts = {name: getattr(importlib.import_module(index[name][0]), index[name][1]).from_pretrained(folder / name) for name in PARTS}
    pipe = plus.QwenImageEditPlusPipeline(**parts)
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder):
        part.float().eval()

    def dimensions(area, ratio):
        width = math.sqrt(area * ratio)
        return tuple(round(side / sizes["multiple"]) * sizes["multiple"] for side in (width, width / ratio))

    plus.calculate_dimensions = dimensions
    plus.VAE_IMAGE_SIZE, plus.CONDITION_IMAGE_SIZE = sizes["reference_area"], sizes["vision_area"]
    encode, pad = pipe.text_encoder.forward, pipe.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    pipe.text_encoder.forward = lambda input_ids, **rest: encode(input_ids=input_ids, mm_token_type_ids=(input_ids == pad).int(), **rest)
    pipe.set_progress_bar_config(disable=True)
    return pipe, sizes


@torch.no_grad()
def edit(pipe, sizes, picture, prompt, seed=0, steps=None, scale=None):
    """The picture behind an edit, at the size the model works at."""
    scale = sizes["true_cfg_scale"] if scale is None else scale
    width, height = plus.calculate_dimensions(sizes["reference_area"], picture.width / picture.height)
    made = pipe(
        image=[picture],
        prompt=prompt,
        negative_prompt=" " if scale > 1 else None,
        true_cfg_scale=scale,
        num_inference_steps=steps or sizes["steps"],
        width=width,
        height=height,
        generator=torch.Generator().manual_seed(seed),
    )
    return made.images[0]


@torch.no_grad()
def reconstruction(pipe, pairs):
    """What the autoencoder alone does to the right answers: their PSNR, and how
    many of them still count as right."""
    pictures = single.pictures(np.stack([np.asarray(p.after) for p in pairs]))
    z, _ = single.encode(pipe.vae, pictures)
    made = single.decode(pipe.vae, z).clamp(-1, 1)
    images = ((made + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return single.psnr(made, pictures).mean().item(), np.mean([all(judge(p, y)) for p, y in zip(pairs, images)])


def rates(rows):
    """Number, changed, kept and both of (change, kept) rows."""
    rows = np.array(rows)
    return [len(rows), *rows.mean(0), rows.all(1).mean()]


def measure(pipe, sizes):
    pairs = {size: [pair(HELD_OUT + 1000 * size[0] + k, size) for k in range(count)] for size, count in COUNTS.items()}
    rows = []
    for size, drawn in pairs.items():
        for k, p in enumerate(drawn):
            rows.append((size, p.edit.kind, p.language, judge(p, edit(pipe, sizes, p.before, p.prompt, seed=k))))
    square = [row for row in rows if row[0] == SQUARE]
    two = [len(p.scene.shapes) == 2 for p in pairs[SQUARE]]
    part = [p for p, several in zip(pairs[SQUARE], two) if several][:VARIED]
    varied = lambda **how: rates([judge(p, edit(pipe, sizes, p.before, p.prompt, seed=1, **how)) for p in part])
    large = lambda p: edit(pipe, sizes, draw(p.scene, (512, 512), 1), p.prompt)
    result = {"all": rates([row[3] for row in square])}
    result |= {kind: rates([row[3] for row in square if row[1] == kind]) for kind in EDITS}
    result |= {language: rates([row[3] for row in square if row[2] == language]) for language in ("en", "zh")}
    result["two shapes"] = rates([row[3] for row, several in zip(square, two) if several])
    result["not square"] = rates([row[3] for row in rows if row[0] != SQUARE])
    result["large"] = rates([judge(p, large(p)) for p in part])
    result["4 steps"], result["guidance 4"] = varied(steps=4), varied(scale=4.0)
    result["unchanged"] = np.mean([judge(p, p.before)[0] for p in pairs[SQUARE]])
    result["psnr"], result["oracle"] = reconstruction(pipe, pairs[SQUARE])
    return result


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--card", type=Path, help="the model card to write")
    options.add_argument("--training", type=Path, help="the notes that edit_train.py left")
    args = options.parse_args()
    torch.set_num_threads(1)
    pipe, sizes = load(args.model)
    result = measure(pipe, sizes)
    for name, value in result.items():
        print(f"{name:12}", " ".join(f"{v:.3f}" for v in np.atleast_1d(value)))
    if args.card:
        size = sum(file.stat().st_size for file in args.model.rglob("*.safetensors"))
        args.card.write_text(edit_card.text(pipe, size, result, json.loads(args.training.read_text()), sizes))


if __name__ == "__main__":
    main()
