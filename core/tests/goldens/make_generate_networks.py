"""Writes `generate-networks/`: the autoencoder of a small SDXL, and what diffusers computes with it.

The folder is as published (config.json, diffusion_pytorch_model.safetensors in bfloat16), with random weights that are
perturbed everywhere, also norms and biases, so that no layer can hide. Everything is computed in f32.

- `vae/golden.safetensors` has `picture`, the `latents` that it is encoded to (their mode, times the scaling factor), `noise`,
  and the picture `decoded` from it. Channels are last.

    pip install -r requirements.txt && python make_generate_networks.py
"""

import pathlib
import shutil

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parent / "generate-networks"

VAE = dict(
    in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
    block_out_channels=[8, 12, 16], layers_per_block=2, latent_channels=4, norm_num_groups=4, sample_size=32,
    scaling_factor=0.13025, force_upcast=False,
)  # fmt: skip


def randomise(model, generator):
    """Fills every parameter so that each of them changes the answer, with values that bfloat16 has."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("bias"):
            value = 0.2 * noise
        elif parameter.ndim == 1:
            value = 1 + 0.3 * noise
        else:
            value = noise * parameter[0].numel() ** -0.5
        parameter.data.copy_(value.bfloat16())
    return model.eval()


def last(x):
    return x.permute(0, 2, 3, 1).contiguous()


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "vae").mkdir(parents=True)
    generator = torch.Generator().manual_seed(9)
    model = randomise(AutoencoderKL(**VAE), generator)
    model.save_config(OUT / "vae")
    tensors = {name: tensor.bfloat16().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, OUT / "vae/diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    picture = torch.rand(2, 3, 20, 12, generator=generator) * 2 - 1
    noise = torch.randn(2, 4, 3, 5, generator=generator)
    golden = {
        "picture": last(picture),
        "latents": last(model.encode(picture).latent_dist.mode() * model.config.scaling_factor),
        "noise": last(noise),
        "decoded": last(model.decode(noise / model.config.scaling_factor).sample),
    }
    save_file(golden, OUT / "vae/golden.safetensors")
    for name, tensor in golden.items():
        print(name, tuple(tensor.shape), f"{tensor.std():.3f}")
    for file in (OUT / "vae").iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
