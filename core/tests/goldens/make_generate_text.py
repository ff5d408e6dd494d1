"""Writes `generate-text/`: the two text encoders of a small SDXL, and what transformers computes with them.

`l` is a `CLIPTextModel` with quick GELU, whose config says the old number of the token that ends a prompt; `g` is a
`CLIPTextModelWithProjection` with exact GELU. Weights are random, perturbed everywhere, with values that bfloat16 has.
Everything is computed in f32, all prompts at once.

- `{l,g}.json` are the configurations, `{l,g}.safetensors` the weights in bfloat16.
- `golden.json` has the prompts as numbers of tokens.
- `golden.safetensors` has `{l,g}.states.k`, the states behind `k` layers, and `{l,g}.pooled`.

    pip install -r requirements.txt && python make_generate_text.py
"""

import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

OUT = pathlib.Path(__file__).resolve().parent / "generate-text"

SIZES = dict(vocab_size=40, max_position_embeddings=9, bos_token_id=38)
ENCODERS = {
    "l": (CLIPTextModel, dict(
        architectures=["CLIPTextModel"], hidden_size=48, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
        hidden_act="quick_gelu", layer_norm_eps=1e-5, eos_token_id=2, projection_dim=48,
    )),
    "g": (CLIPTextModelWithProjection, dict(
        architectures=["CLIPTextModelWithProjection"], hidden_size=32, intermediate_size=72, num_hidden_layers=4,
        num_attention_heads=2, hidden_act="gelu", layer_norm_eps=1e-3, eos_token_id=39, projection_dim=24,
    )),
}  # fmt: skip

# 39 ends a prompt. The rest of a prompt is filled with it, with 0, or not at all.
PROMPTS = [[38, 5, 7, 39, 39, 39, 39, 39, 39], [38, 1, 39, 0, 0, 0, 0, 0, 0], [38, 9, 8, 7, 6, 5, 4, 3, 39]]


def randomise(model, generator):
    """Fills every parameter so that each of them changes the answer, with values that bfloat16 has."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("bias"):
            value = 0.2 * noise
        elif parameter.ndim == 1:
            value = 1 + 0.3 * noise
        elif "embedding" in name:
            value = noise
        else:
            value = noise * parameter[0].numel() ** -0.5
        parameter.data.copy_(value.bfloat16())
    return model.eval()


def published(name):
    """What a parameter is called in published files; in transformers 5 a `CLIPTextModel` has no prefix."""
    return name if name.startswith("text_") else f"text_model.{name}"


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    generator, golden = torch.Generator().manual_seed(8), {}
    for name, (kind, values) in ENCODERS.items():
        config = SIZES | values
        model = randomise(kind(CLIPTextConfig(**config)), generator)
        tensors = {published(key): value.bfloat16().contiguous() for key, value in model.state_dict().items()}
        save_file(tensors, OUT / f"{name}.safetensors", metadata={"format": "pt"})
        (OUT / f"{name}.json").write_text(json.dumps(config | {"model_type": "clip_text_model"}, indent=1) + "\n")
        made = model(input_ids=torch.tensor(PROMPTS), output_hidden_states=True)
        for i, states in enumerate(made.hidden_states):
            golden[f"{name}.states.{i}"] = states.contiguous()
        golden[f"{name}.pooled"] = made.text_embeds if hasattr(made, "text_embeds") else made.pooler_output
        print(name, sorted(tensors)[:2], golden[f"{name}.pooled"].std())
    save_file(golden, OUT / "golden.safetensors")
    (OUT / "golden.json").write_text(json.dumps(PROMPTS) + "\n")
    for file in OUT.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
