"""Writes the model card of the demo edit model from what was measured."""

from edit_judge import CLOSE, GREY, KEPT
from edit_words import COLOURS, PHRASES, SHAPES

TEMPLATE = """\
---
license: mit OR apache-2.0
library_name: diffusers
tags: [image-to-image, diffusers, image-editing]
---

# Demo edit model

A very small image editing model that is shipped inside tagbrush, so that examples,
tests and first steps work without a download. **It is a demo, not for real
pictures**: it has only ever seen one or two flat shapes on a plain background, and
knows four edits.

It has the architecture of Qwen-Image-Edit-2511 with other sizes, and the folder
has the layout that diffusers publishes (`QwenImageEditPlusPipeline`, weights in
bfloat16, {size:.2f} MB):

| part | parameters |
|---|---|
| `transformer` ({layers} blocks of width {width}, `zero_cond_t`) | {transformer:,} |
| `text_encoder` (vision part, and a language model of width {text}) | {text_encoder:,} |
| `vae` ({latents} latent channels; most of its kernels are for videos, and zero) | {vae:,} |

The pipeline scales reference pictures to sizes that are far too large for this
model. `model_index.json` therefore has a key `tagbrush` of its own: the areas in
pixels that pictures are scaled to for the autoencoder (`reference_area`) and for the
text encoder (`vision_area`), what their sides are multiples of, and the steps and the
guidance to use. Square pictures of any size become 64 x 64, and so does the result;
pictures of about 3:2 become 80 x 48.

## What it can do

| edit | English | Chinese |
|---|---|---|
{phrases}

Colours: {colours}.
Shapes: {shapes}.

Other words mean nothing to it. Capitals at the start and a full stop at the end do not
matter. {steps} steps without guidance are enough; guidance (a `true_cfg_scale` above 1 with
the negative prompt `" "`) works but is not needed.

## Training

By the scripts `edit_*.py` in `core/demo/training` (pinned in `edit_requirements.txt`),
on pairs of pictures drawn from seeds, nothing else:

    python core/demo/training/edit_pool.py --work WORK
    python core/demo/training/edit_autoencoder.py --work WORK
    python core/demo/training/edit_train.py --work WORK --out core/demo/edit
    python core/demo/training/edit_evaluate.py --model core/demo/edit --training WORK/notes.json --card core/demo/edit/README.md
    python core/demo/training/edit_samples.py --model core/demo/edit --out core/demo/edit/samples

First the autoencoder, {autoencoder_steps:,} steps on parts of 32 x 32 pixels; then the transformer and
the text encoder together, {trained:,} steps of {batch} pairs with Muon (matrices of the
blocks) and AdamW (the rest). The latter took {minutes:.0f} minutes on two CPU cores that were busy
with other work as well. Small heads that learn to name the edit and to find its place
help; they are not part of the model. The training has a forward pass of its own, which
gives the library's numbers (`edit_parity.py`).

## Measured

Pictures of other seeds, edited by the pipeline of diffusers from the stored weights in
single precision, {steps} steps without guidance unless named. *Changed*: the colour asked for
is measured where it belongs, nearest to the right one of the {count} and within {close} levels
of 255 in each channel; what was removed is within 30 levels of the background; a grey
picture is within {grey} levels of grey and of the right lightness. *Kept*: what the edit does
not concern differs by less than {kept} levels on average.

| pictures | number | changed | kept | both |
|---|---|---|---|---|
{rows}

Pictures that are left as they are count as changed in {unchanged:.1%}. The autoencoder
alone reproduces the right answers with a PSNR of {psnr:.1f} dB; {oracle:.1%} of them count as
right then.

`samples` has a few drawings, and in `expected.json` instructions with what must be true
of the answers: rectangles, in parts of the picture's width and height, and the colours
that they have on average. All of these edits come out right with several seeds.

## Limits

- Results have about 64 x 64 pixels, and edges are a little soft.
- Three or more shapes, two of a kind, shapes that touch or are cut off by the edge, other
  backgrounds, photographs and other instructions were not trained, and come out anyhow.
- A shape in the colour of what it lies on, as an edit may ask for, cannot be seen.

## Licence

MIT OR Apache-2.0, like the code. The pictures and weights were all made for this
project.
"""
NAMES = {
    "all": "square, all",
    "grey": "greyscale",
    "en": "English",
    "zh": "Chinese",
    "not square": "80 x 48 and 48 x 80",
    "large": "two shapes, drawn at 512 x 512",
    "4 steps": "two shapes, 4 steps",
    "guidance 4": "two shapes, guidance 4",
}
EDITS = {"background": "new background", "recolour": "new colour of a shape", "grey": "no colours", "remove": "shape taken away"}


def sample(language, edit):
    """Two ways to ask for an edit."""
    shape, colour = ("circle", "red") if language == "en" else (SHAPES["circle"][0], COLOURS["red"])
    return ", ".join(f"`{phrase.format(s=shape, c=colour)}`" for phrase in PHRASES[language][edit][:3])


def text(pipe, size, result, notes, sizes):
    count = lambda part: sum(p.numel() for p in part.parameters())
    rows = [
        f"| {NAMES.get(name, name)} | {value[0]:.0f} | {value[1]:.1%} | {value[2]:.1%} | {value[3]:.1%} |"
        for name, value in result.items()
        if isinstance(value, list)
    ]
    return TEMPLATE.format(
        size=size / 1e6,
        layers=pipe.transformer.config.num_layers,
        width=pipe.transformer.inner_dim,
        text=pipe.transformer.config.joint_attention_dim,
        latents=pipe.vae.config.z_dim,
        transformer=count(pipe.transformer),
        text_encoder=count(pipe.text_encoder),
        vae=count(pipe.vae),
        phrases="\n".join(f"| {label} | {sample('en', edit)} | {sample('zh', edit)} |" for edit, label in EDITS.items()),
        colours=", ".join(f"{name} {chinese}" for name, chinese in COLOURS.items()),
        shapes=", ".join(f"{name} {'/'.join(chinese)}" for name, chinese in SHAPES.items()),
        steps=sizes["steps"],
        trained=notes["steps"],
        autoencoder_steps=notes["autoencoder_steps"],
        batch=notes["batch"],
        minutes=notes["minutes"],
        count=len(COLOURS),
        close=CLOSE,
        grey=GREY,
        kept=KEPT,
        rows="\n".join(rows),
        **{name: result[name] for name in ("unchanged", "psnr", "oracle")},
    )
