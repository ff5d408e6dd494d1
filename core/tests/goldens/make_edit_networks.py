"""Writes `edit-networks/`: a small QwenImage transformer and autoencoder, and what diffusers computes.

Both are in folders as published (config.json, diffusion_pytorch_model.safetensors in bfloat16), with random weights
that are perturbed everywhere, also norms, biases and the mean and deviation of latents, so that no layer can hide.
Everything is computed in f32, one sample at a time, but for what has `bf16` in its name.

- `transformer/golden.json` lists samples, in tokens; `golden.safetensors` has for sample `i` its latents `image.i` (target
  first), the states of its prompt `text.i`, and the velocity of the target's tokens: `plain.i`, `zero.i` with
  `zero_cond_t`, and `bf16.i` of the first in bfloat16, which rounds also the time.
- `vae/golden.safetensors` has `picture`, the `latents` that it is encoded to (normalised) and their tokens `packed`, `noise`,
  and the picture `decoded` from it. Channels are last.

    pip install -r requirements.txt && python make_edit_networks.py
"""

import copy
import json
import pathlib

import torch
from diffusers import AutoencoderKLQwenImage, QwenImageEditPipeline, QwenImageTransformer2DModel
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parent / "edit-networks"

# The parts of a head differ, so that exchanged axes show.
TRANSFORMER = dict(
    patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
    joint_attention_dim=20, axes_dims_rope=(4, 8, 4), guidance_embeds=False,
)  # fmt: skip
VAE = dict(
    base_dim=4, z_dim=4, dim_mult=[1, 2, 3], num_res_blocks=2, temperal_downsample=[False, True],
    latents_mean=[-0.7, 0.3, 0.05, 1.1], latents_std=[2.8, 1.4, 0.7, 1.9],
)  # fmt: skip

# Rows and columns of the target and its references, tokens of the prompt, time. Odd sides, and a reference that is larger
# than the target: it decides where the prompt lies.
SAMPLES = [
    dict(target=[4, 6], references=[[4, 6]], text=7, time=0.9),
    dict(target=[3, 5], references=[[9, 2], [2, 3]], text=3, time=0.25),
    dict(target=[2, 2], references=[], text=5, time=1.0),
]


def randomise(model, generator):
    """Fills every parameter so that each of them changes the answer, with values that bfloat16 has."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("gamma") or (name.endswith("weight") and parameter.ndim == 1):
            value = 1 + 0.3 * noise
        elif name.endswith("bias"):
            value = 0.2 * noise
        else:
            planes = parameter.shape[2] if parameter.ndim == 5 else 1  # One frame sees one of them.
            value = noise * (parameter[0].numel() / planes) ** -0.5
        parameter.data.copy_(value.bfloat16())


def save(model, folder):
    folder.mkdir(parents=True, exist_ok=True)
    model.save_config(folder)
    tensors = {name: tensor.bfloat16().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def report(name, tensor):
    print(f"{name}: {tuple(tensor.shape)}, deviation {tensor.std():.3f}, largest {tensor.abs().max():.3f}")


def transformer():
    generator = torch.Generator().manual_seed(1)
    plain = QwenImageTransformer2DModel(**TRANSFORMER).eval()
    randomise(plain, generator)
    zero = QwenImageTransformer2DModel(**TRANSFORMER, zero_cond_t=True).eval()
    zero.load_state_dict(plain.state_dict())
    low = copy.deepcopy(plain).bfloat16()
    save(plain, OUT / "transformer")
    tensors = {}
    for i, sample in enumerate(SAMPLES):
        grids = [sample["target"], *sample["references"]]
        counts = [rows * columns for rows, columns in grids]
        image = torch.randn(1, sum(counts), TRANSFORMER["in_channels"], generator=generator)
        text = 3 * torch.randn(1, sample["text"], TRANSFORMER["joint_attention_dim"], generator=generator)
        tensors |= {f"image.{i}": image[0], f"text.{i}": text[0]}
        for name, model in (("plain", plain), ("zero", zero), ("bf16", low)):
            result = model(
                hidden_states=image.to(model.dtype),
                encoder_hidden_states=text.to(model.dtype),
                timestep=torch.tensor([sample["time"]], dtype=model.dtype),
                img_shapes=[[(1, *grid) for grid in grids]],
                return_dict=False,
            )[0]
            tensors[f"{name}.{i}"] = result[0, : counts[0]].float().contiguous()
            report(f"{name}.{i}", tensors[f"{name}.{i}"])
    save_file(tensors, OUT / "transformer" / "golden.safetensors")
    (OUT / "transformer" / "golden.json").write_text(json.dumps(SAMPLES, indent=1) + "\n")


def vae():
    generator = torch.Generator().manual_seed(2)
    model = AutoencoderKLQwenImage(**VAE).eval()
    randomise(model, generator)
    save(model, OUT / "vae")
    channel = lambda values: torch.tensor(values).reshape(1, -1, 1, 1, 1)
    mean, deviation = channel(VAE["latents_mean"]), channel(VAE["latents_std"])
    picture = torch.rand(2, 3, 1, 24, 32, generator=generator) * 2 - 1
    latents = (model.encode(picture).latent_dist.mode() - mean) / deviation
    noise = torch.randn(2, VAE["z_dim"], 1, 4, 6, generator=generator)
    decoded = model.decode(noise * deviation + mean).sample
    b, c, _, h, w = latents.shape
    packed = QwenImageEditPipeline._pack_latents(latents, b, c, h, w).reshape(b, h // 2, w // 2, 4 * c)
    last = lambda tensor: tensor[:, :, 0].permute(0, 2, 3, 1).contiguous()
    tensors = dict(picture=last(picture), latents=last(latents), packed=packed.contiguous(), noise=last(noise), decoded=last(decoded))
    for name, tensor in tensors.items():
        report(name, tensor)
    print(f"at the ends of the range: {(decoded.abs() == 1).float().mean():.2f}")
    save_file(tensors, OUT / "vae" / "golden.safetensors")


if __name__ == "__main__":
    with torch.no_grad():
        transformer()
        vae()
