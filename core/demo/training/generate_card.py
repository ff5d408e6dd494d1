"""Writes the model card of the demo model that generates from what was measured."""

from edit_judge import CLOSE
from edit_words import COLOURS, SHAPES
from generate_judge import LIKE
from generate_networks import count
from generate_pictures import HELD_OUT

TEMPLATE = """\
---
license: mit OR apache-2.0
library_name: diffusers
tags: [text-to-image, diffusers]
---

# Demo model that generates

A very small text to image model that is shipped inside tagbrush, so that examples,
tests and first steps work without a download. **It is a demo, not for real
pictures**: all that it can draw is a flat shape on a plain background.

It has the architecture of SDXL with other sizes, and the folder has the layout that
diffusers publishes (`StableDiffusionXLPipeline`, weights in bfloat16, {size:.2f} MB in all):

| part | parameters |
|---|---|
| `unet` (stages of {stages} channels, answers velocities) | {unet:,} |
| `text_encoder` (width {small}) and `text_encoder_2` (width {large}) | {texts:,} |
| `vae` ({latents} latent channels) | {vae:,} |

Two things are its own. The tokenizers have CLIP's form but {words} tokens, and the text
encoders have places for {length}. `model_index.json` has a key `tagbrush` with the size of pictures
that are not asked for in another one, 64 x 64, the only size that it was trained for, and says that fast
performances need no LoRA file (4 steps draw a shape too, a little less well) and that no styles go with it.

## What it can do

| English | Chinese |
|---|---|
| `a red circle` (on white), `a red circle on blue`, `a red circle on a blue background`, `a red circle, blue background`, `a blue background with a red circle` | `红色圆形` (on white), `蓝色背景上的红色圆形`, `红色圆形，蓝色背景`, `蓝色背景，红色圆形` |

Colours: {colours}.
Shapes: {shapes}.

Where a shape is and how large is up to the seed. Capitals and a full stop at the end do not
matter; Chinese may have `一个` and `的`. Other words mean nothing to it. A shape in
the colour of the background cannot be seen.

## Training

By the scripts `generate_*.py` in `core/demo/training` (pinned in `edit_requirements.txt`),
on pictures drawn from seeds, nothing else. The autoencoder has seen one or two shapes in a
picture, the network one (in its first hundred steps now and then two):

    python core/demo/training/generate_pool.py --work WORK
    python core/demo/training/generate_autoencoder.py --work WORK
    python core/demo/training/generate_train.py --work WORK --out core/demo/generate
    python core/demo/training/generate_evaluate.py --model core/demo/generate --tool TOOL --training WORK/generate-notes.json --card core/demo/generate/README.md

First the autoencoder, {autoencoder_steps:,} steps; then the network and the text encoders together,
{trained:,} steps of {batch} pictures (the first 600 of twice as many) with Muon (matrices and kernels of the blocks) and AdamW (the
rest). The latter took {minutes:.0f} minutes on two CPU cores that were busy with other work as
well. Small heads that learn to read the colours off a prompt help; they are not part of
the model.

## Measured

One of {held_out} combinations of background, shape and colour was never trained on (16 of 168); these
are prompts for such, each judged by its pixels. *Background*: within {close} levels of 255 of
its colour in each channel, and nearest to it of the {colour_count}. *Number*: one area stands
out from it, and no specks. *Shape*: it is most like the right shape, with an
intersection over union of {like} or more. *Colour*: the shape has its own, measured as the
background's. *All*: everything is right.

Pictures are made by the command line tool with the settings that it has unless told
otherwise ({steps}, bf16), where nothing else is named; those of
diffusers with 20 steps of Euler and guidance 4.

| pictures | prompts | background | number | shape | colour | all |
|---|---|---|---|---|---|---|
{rows}

*Autoencoder* are right pictures, encoded and decoded: what the network could reach at
most. Their PSNR is {psnr:.1f} dB.

## Limits

- Pictures have 64 x 64 pixels, and edges are a little soft.
- Guidance 4 exaggerates forms: circles get hints of corners, and sides of squares bend inwards. A lower
  one (`--guidance-scale 2`) draws them more plainly.
- Two or more shapes, places and sizes in words, and other things were not trained, and come
  out anyhow. The scripts can train two shapes (`--single 0.4`), which takes many more steps.

## Licence

MIT OR Apache-2.0, like the code. The pictures and weights were all made for this
project.
"""
STEPS = "30 steps of `dpmpp_2m_sde_gpu` with `karras`, guidance 4, sharpness 2"


def text(pipe, size, result, quality, notes):
    rows = [f"| {name} | {value[0]:.0f} | " + " | ".join(f"{v:.1%}" for v in value[1:]) + " |" for name, value in result.items()]
    return TEMPLATE.format(
        size=size / 1e6,
        stages=" and ".join(map(str, pipe.unet.config.block_out_channels)),
        small=pipe.text_encoder.config.hidden_size,
        large=pipe.text_encoder_2.config.hidden_size,
        latents=pipe.vae.config.latent_channels,
        unet=count(pipe.unet),
        texts=count(pipe.text_encoder) + count(pipe.text_encoder_2),
        vae=count(pipe.vae),
        words=pipe.text_encoder.config.vocab_size,
        length=pipe.text_encoder.config.max_position_embeddings,
        colours=", ".join(f"{name} {chinese}" for name, chinese in COLOURS.items()),
        shapes=", ".join(f"{name} {'/'.join(chinese)}" for name, chinese in SHAPES.items()),
        trained=notes["steps"],
        autoencoder_steps=notes["autoencoder_steps"],
        batch=notes["batch"],
        minutes=notes["minutes"],
        held_out=HELD_OUT,
        close=CLOSE,
        colour_count=len(COLOURS),
        like=LIKE,
        steps=STEPS,
        rows="\n".join(rows),
        psnr=quality,
    )
