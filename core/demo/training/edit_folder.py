"""Writes the model folder of the demo edit model: the layout that diffusers
publishes, weights in bfloat16."""

import json

import torch
from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

from edit_networks import autoencoder, scheduler, text_encoder, transformer
from edit_words import tokenizer

# Sizes that pipelines have built in, and how this model is best run.
TAGBRUSH = {"reference_area": 4096, "vision_area": 3136, "multiple": 16, "steps": 8, "true_cfg_scale": 1.0}
INDEX = {
    "_class_name": "QwenImageEditPlusPipeline",
    "_diffusers_version": "0.42.1",
    "processor": ["transformers", "Qwen2VLProcessor"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "QwenImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLQwenImage"],
    "tagbrush": TAGBRUSH,
}


def image_processor():
    return Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=12_845_056)


def write(out, vae, weights):
    """`vae` holds the autoencoder's weights and the mean and spread of its
    latents, `weights` those of the two other networks, by their names."""
    words = tokenizer()
    coder, text, dit = autoencoder(), text_encoder(words), transformer()
    coder.load_state_dict(vae["vae"])
    for name in ("latents_mean", "latents_std"):
        coder.register_to_config(**{name: [round(v, 5) for v in vae[name]]})
    for model, name in ((text, "text_encoder."), (dit, "transformer.")):
        part = {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}
        missing, unknown = model.load_state_dict(part, strict=False)
        assert not unknown and set(missing) <= {"lm_head.weight"}, (missing, unknown)
    out.mkdir(parents=True, exist_ok=True)
    for model, name in ((coder, "vae"), (text, "text_encoder"), (dit, "transformer")):
        model.to(torch.bfloat16).save_pretrained(out / name)
    scheduler().save_pretrained(out / "scheduler")
    words.save_pretrained(out / "tokenizer")
    for part in (words, image_processor(), Qwen2VLVideoProcessor()):
        part.save_pretrained(out / "processor")
    (out / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
