"""Writes `generate-unet/`: denoising networks of several kinds, small, and what diffusers computes with them.

`base` and `refiner` have the structure of SDXL's networks, `sd1` that of Stable Diffusion 1 with the latents of a picture and
a mask as further channels. Each folder is as published (config.json,
diffusion_pytorch_model.safetensors in bfloat16), with random weights that are perturbed everywhere, also norms and biases.
Everything is computed in f32, every sample alone, since diffusers takes texts of one length only.

`{kind}/golden.safetensors` has `latents` (channels last), `timesteps`, `text.i` of sample i, `pooled` and `sizes` where the
network asks for them, and the `output`; some kinds have sides that are no multiples of what they are divided by.

    pip install -r requirements.txt && python make_generate_unet.py
"""

import pathlib
import shutil

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from make_generate_networks import last, randomise

OUT = pathlib.Path(__file__).resolve().parent / "generate-unet"

SMALL = dict(sample_size=8, norm_num_groups=2, cross_attention_dim=6, in_channels=4, out_channels=4)
BASE = dict(
    SMALL, block_out_channels=[4, 8, 12], layers_per_block=2, transformer_layers_per_block=[0, 1, 2],
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], attention_head_dim=[1, 2, 3],
    use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=4,
    projection_class_embeddings_input_dim=10 + 6 * 4,
)  # fmt: skip
SIZES = {10 + 6 * 4: 6, 8 + 5 * 6: 5}
# Name: arguments, sides of the latents, times, numbers of tokens.
KINDS = {
    "base": (BASE, (8, 12), [999.0, 3.25, 3.25], [5, 5, 9]),
    "refiner": (dict(
        SMALL, block_out_channels=[4, 6, 8, 8], layers_per_block=1, transformer_layers_per_block=2,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        attention_head_dim=[1, 2, 2, 4], use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=6, projection_class_embeddings_input_dim=8 + 5 * 6, norm_eps=1e-4,
    ), (9, 14), [801.5, 20.0], [7, 4]),
    "sd1": (dict(
        SMALL, in_channels=9, block_out_channels=[4, 4, 8, 8], layers_per_block=1, attention_head_dim=2, freq_shift=1,
        flip_sin_to_cos=False,
    ), (5, 17), [41.0], [6]),
}  # fmt: skip


def golden(model, size, times, lengths, generator):
    config = model.config
    rand = lambda *shape: torch.randn(*shape, generator=generator)
    count = len(times)
    tensors = {
        "latents": rand(count, config.in_channels, *size),
        "timesteps": torch.tensor(times),
    }
    texts = [rand(length, config.cross_attention_dim) for length in lengths]
    if config.addition_embed_type:
        sizes = SIZES[config.projection_class_embeddings_input_dim]
        tensors["sizes"] = torch.tensor([[1024.0, 960, 0, 16, 832.0, 6.5][:sizes]] * count)
        tensors["sizes"][:, 1] += 64 * torch.arange(count)
        tensors["pooled"] = rand(count, config.projection_class_embeddings_input_dim - sizes * config.addition_time_embed_dim)
    outputs = []
    for i, text in enumerate(texts):
        added = {"text_embeds": tensors["pooled"][i : i + 1], "time_ids": tensors["sizes"][i : i + 1]} if "sizes" in tensors else None
        outputs.append(
            model(tensors["latents"][i : i + 1], tensors["timesteps"][i : i + 1], text[None], added_cond_kwargs=added).sample
        )
    tensors["latents"] = last(tensors["latents"])
    tensors["output"] = last(torch.cat(outputs))
    return tensors | {f"text.{i}": text for i, text in enumerate(texts)}


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    generator = torch.Generator().manual_seed(11)
    for name, (arguments, *inputs) in KINDS.items():
        folder = OUT / name
        folder.mkdir(parents=True)
        model = randomise(UNet2DConditionModel(**arguments), generator)
        model.save_config(folder)
        weights = {name: tensor.bfloat16().contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
        tensors = golden(model, *inputs, generator)
        save_file(tensors, folder / "golden.safetensors")
        print(name, len(weights), tuple(tensors["output"].shape), f"{tensors['output'].std():.3f}")
        for file in folder.iterdir():
            file.chmod(0o644)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
