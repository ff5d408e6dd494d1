"""Measures the demo model that generates on combinations it was never trained on.

    python core/demo/training/generate_evaluate.py --model core/demo/generate --tool target/release/tagbrush

The pictures are made by the command line tool with the settings that it has unless
told otherwise, which is what a user gets, and by the pipeline of diffusers, with the
steps of Euler, from the stored weights in single precision."""

import argparse
import json
import random
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image

import generate_card
import generate_autoencoder as single
from edit_autoencoder import pictures, psnr
from edit_pictures import draw
from edit_words import SHAPES
from generate_judge import judge
from generate_pictures import SIDE, placed, wanted
from generate_words import prompt

FIRST = 1_000_000_000  # first seed of what is never trained on
COUNT = 400  # prompts, half of each language
VARIED = 200  # of them for what is measured in other ways too
AT_ONCE = 4  # prompts of one call of the tool, which share their noise


def asked(shapes):
    """Prompts in turns of English and Chinese, and what they ask for."""
    rng = random.Random("evaluation")
    what = [wanted(FIRST + k, True, shapes) for k in range(COUNT)]
    return [(prompt(rng, ("en", "zh")[k % 2], *w), *w) for k, w in enumerate(what)]


def by_tool(tool, model, cases, more=()):
    """The pictures of the command line tool; every call has a seed of its own."""
    made = []
    for first in range(0, len(cases), AT_ONCE):
        part = cases[first : first + AT_ONCE]
        with tempfile.TemporaryDirectory() as out:
            prompts = [text for case in part for text in ("--prompt", case[0])]
            how = ["--model", model, "--seed", str(first), "--output", out, "--quiet", *more]
            subprocess.run([tool, "generate", *prompts, *how], check=True, stdout=subprocess.DEVNULL)
            made += [np.asarray(Image.open(file)) for file in sorted(Path(out).glob("*.png"))]
    return made


@torch.no_grad()
def by_diffusers(pipe, cases, steps, scale):
    made = []
    for first in range(0, len(cases), AT_ONCE):
        texts = [case[0] for case in cases[first : first + AT_ONCE]]
        made += pipe(
            prompt=texts,
            negative_prompt=[""] * len(texts) if scale > 1 else None,
            num_inference_steps=steps,
            guidance_scale=scale,
            generator=[torch.Generator().manual_seed(first + k) for k in range(len(texts))],
        ).images
    return [np.asarray(image) for image in made]


@torch.no_grad()
def reconstruction(vae, cases):
    """What the autoencoder alone does to right pictures: PSNR, and the judge's rows."""
    rng = random.Random("places")
    true = np.stack([np.asarray(draw(placed(rng, *case[1:]), (SIDE, SIDE), 3)) for case in cases])
    pixels = pictures(true)
    made = single.decode(vae, single.encode(vae, pixels)[0]).clamp(-1, 1)
    images = ((made + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return psnr(made, pixels).mean().item(), images


def rows(cases, images):
    return np.array([judge(image, *case[1:]) for case, image in zip(cases, images)])


def rate(found):
    """Number, and the parts with the background, the number of shapes, their kinds,
    their colours, and everything right."""
    return [len(found), *found.mean(0), found.all(1).mean()]


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--tool", type=Path, required=True, help="the command line tool, built")
    options.add_argument("--embedded", action="store_true", help="let the tool take the model that it has built in")
    options.add_argument("--shapes", type=int, default=1, help="of every picture")
    options.add_argument("--card", type=Path, help="the model card to write")
    options.add_argument("--training", type=Path, help="the notes that generate_train.py left")
    args = options.parse_args()
    torch.set_num_threads(1)
    cases, model = asked(args.shapes), "demo" if args.embedded else str(args.model)
    pipe = StableDiffusionXLPipeline.from_pretrained(args.model, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    chinese = np.arange(len(cases)) % 2 == 1
    kinds = np.array([case[2][0][0] for case in cases])
    found = rows(cases, by_tool(args.tool, model, cases))
    result = {"all": rate(found), "English": rate(found[~chinese]), "Chinese": rate(found[chinese])}
    if args.shapes == 1:
        result |= {kind: rate(found[kinds == kind]) for kind in SHAPES}
    part = cases[:VARIED]
    varied = lambda *more: rate(rows(part, by_tool(args.tool, model, part, more)))
    result["in f32"] = varied("--dtype", "f32")
    result["without guidance"] = varied("--guidance-scale", "1")
    result["12 steps of Euler"] = varied("--sampler", "euler", "--steps", "12")
    result["by diffusers"] = rate(rows(part, by_diffusers(pipe, part, 20, 4.0)))
    quality, images = reconstruction(pipe.vae, cases)
    result["autoencoder"] = rate(rows(cases, images))
    for name, value in result.items():
        print(f"{name:20}", " ".join(f"{v:.3f}" for v in value), flush=True)
    print(f"psnr {quality:.2f}")
    if args.card:
        size = sum(file.stat().st_size for file in args.model.rglob("*") if file.is_file() and file != args.card)
        args.card.write_text(generate_card.text(pipe, size, result, quality, json.loads(args.training.read_text())))


if __name__ == "__main__":
    main()
