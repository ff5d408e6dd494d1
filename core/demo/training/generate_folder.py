"""Writes the model folder of the demo model that generates: the layout that
diffusers publishes for SDXL, weights in bfloat16."""

import json

import torch

from generate_networks import autoencoder, scheduler, text_encoders, unet
from generate_pictures import SIDE
from generate_words import PADS, write as write_tokenizer

# What the model is run with unless something else is asked for.
TAGBRUSH = {"few_steps": True, "size": [SIDE, SIDE], "styles": []}
INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None],
    "force_zeros_for_empty_prompt": False,
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "tagbrush": TAGBRUSH,
}


def write(out, vae, weights):
    """`vae` is the autoencoder's weights, `weights` those of the others by their names."""
    coder, (small, large), network = autoencoder(), text_encoders(), unet()
    coder.load_state_dict(vae)
    for model, name in ((small, "small."), (large, "large."), (network, "unet.")):
        model.load_state_dict({k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)})
    out.mkdir(parents=True, exist_ok=True)
    folders = {"vae": coder, "text_encoder": small, "text_encoder_2": large, "unet": network}
    for name, model in folders.items():
        model.to(torch.bfloat16).save_pretrained(out / name)
    scheduler().save_pretrained(out / "scheduler")
    for name, pad in PADS.items():
        write_tokenizer(out / name, pad)
    (out / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
