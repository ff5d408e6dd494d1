"""Writes the model card of the demo tagger from what was measured."""

TEMPLATE = """\
---
license: mit OR apache-2.0
library_name: timm
tags: [image-classification, timm, tagger]
---

# Demo tagger

A very small picture tagger that is shipped inside tagbrush, so that examples,
tests and first steps work without a download. It knows {classes} labels and has
{parameters:,} parameters ({size:.2f} MB in half precision). **It is a demo, not for
real pictures**: it has only ever seen the drawings of its own generator
(flat shapes, simple outdoor scenes, and five mascots).

The folder has the layout of the WD v3 taggers: `config.json`,
`model.safetensors` with timm's names, and `selected_tags.csv`. The model is
timm's `{architecture}` with other sizes (see `model_args`). Input:
transparency on white, a white square around the picture, bicubic to {side} px,
channels in the order **BGR**, scaled to -1..1. Output: one logit per label.

## Labels

- Ratings (category 9): `general`, `sensitive`, `questionable`, `explicit`. All
  pictures are harmless. So that the ratings vary, they follow a convention of
  this demo: a drawn skull (`skull`) makes a picture `sensitive`, a pixelated
  patch (`mosaic_censoring`) `questionable`, a black bar (`bar_censor`)
  `explicit`; every other picture is `general`.
- General tags (category 0), in Danbooru's spelling: backgrounds, shapes, skies,
  scenery, expressions, clothing, tints. A background is named after its colour
  only where the picture has its colours; `monochrome` pictures other than
  greyscale ones have none named.
- Characters (category 4): {characters}, the
  mascots of this project.

The counts in `selected_tags.csv` are the numbers of training pictures.

## Training

`python core/demo/training/train.py --out core/demo/tagger` (pinned in
`requirements.txt`) draws {pictures:,} pictures from seeds, nothing else, and trains
{steps:,} steps of {batch} with Muon (matrices of the blocks) and AdamW (the rest) at
{rate}, binary cross-entropy, mirroring, slight noise and exposure changes, and an
exponential average of the weights. The steps took {minutes:.0f} minutes on two CPU
cores that were busy with other work as well; undisturbed, a step takes about
0.1 s on them, which makes 12 minutes.

## Measured

{held:,} pictures of other seeds, threshold {threshold} (strictly above), weights as
stored (f16), ratings not counted unless named:

| measure | value |
|---|---|
| micro-F1 | {micro_f1:.4f} ({exact_f1:.4f} before rounding to f16) |
| precision / recall | {precision:.4f} / {recall:.4f} |
| macro-F1 | {macro_f1:.4f} |
| pictures with every tag right | {all_tags_right:.1%} |
| pictures with the rating right | {rating_right:.1%} |

The weakest labels are {weakest}:
small objects, alike at {side} px. The sample pictures beside this folder were
chosen among those that come out right in full.

F1 of every label:

| label | category | training pictures | F1 |
|---|---|---|---|
{table}

## Licence

MIT OR Apache-2.0, like the code. The pictures, mascots and weights were all made
for this project.
"""


def text(rows, result, exact, seconds, args, parameters, config, threshold):
    table = "\n".join(
        f"| `{name}` | {category} | {count} | {result['per_tag'][name]:.3f} |".replace("`:|`", "`:\\|`")
        for _, name, category, count in rows
    )
    return TEMPLATE.format(
        classes=len(rows),
        parameters=parameters,
        size=parameters * 2 / 1e6,
        architecture=config["architecture"],
        side=config["pretrained_cfg"]["input_size"][1],
        characters=", ".join(f"`{name}`" for _, name, category, _ in rows if category == 4),
        pictures=args.pictures,
        steps=args.steps,
        batch=args.batch,
        rate=args.rate,
        minutes=seconds / 60,
        held=result["pictures"],
        threshold=threshold,
        micro_f1=result["micro_f1"],
        exact_f1=exact["micro_f1"],
        precision=result["precision"],
        recall=result["recall"],
        macro_f1=result["macro_f1"],
        all_tags_right=result["all_tags_right"],
        rating_right=result["rating_right"],
        weakest=", ".join(f"`{name}`" for name in sorted(result["per_tag"], key=result["per_tag"].get)[:6]),
        table=table,
    )
