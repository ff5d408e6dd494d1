"""Writes `generate-freeu/`: a small network with the channels of SDXL's, and what it answers with FreeU.

The second version of FreeU (https://github.com/ChenyangSi/FreeU) is put in place of the first one, which diffusers has. By its
authors, it is where there are four times and twice as many channels as at the largest size. The folder is as those of
`generate-unet/`; `golden.safetensors` also has `freeu`, the answers with it, and its `scales`: b1, b2, s1, s2.

    pip install -r requirements.txt && python make_generate_freeu.py
"""

import pathlib

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.unets import unet_2d_blocks
from make_generate_networks import last, randomise
from make_generate_unet import SMALL, golden
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parent / "generate-freeu"
WIDE = dict(
    SMALL, block_out_channels=[4, 8, 16], layers_per_block=1, transformer_layers_per_block=1,
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], attention_head_dim=[1, 2, 2],
    use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=4,
    projection_class_embeddings_input_dim=10 + 6 * 4,
)  # fmt: skip
SCALES = dict(b1=1.4, b2=1.7, s1=0.6, s2=0.3)


def fourier_filter(x, scale, threshold=1):
    frequencies = torch.fft.fftshift(torch.fft.fftn(x, dim=(-2, -1)), dim=(-2, -1))
    height, width = x.shape[-2:]
    mask = torch.ones_like(x)
    row, column = height // 2, width // 2
    mask[..., max(row - threshold, 0) : row + threshold, max(column - threshold, 0) : column + threshold] = scale
    return torch.fft.ifftn(torch.fft.ifftshift(frequencies * mask, dim=(-2, -1)), dim=(-2, -1)).real


def main():
    OUT.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(31)
    model = randomise(UNet2DConditionModel(**WIDE), generator)
    model.save_config(OUT)
    weights = {name: tensor.bfloat16().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, OUT / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    with torch.no_grad():
        asked = golden(model, (9, 14), [801.5, 20.0], [5, 4], generator)
    first = model.config.block_out_channels[0]
    changed = set()

    def apply_freeu(_, x, aside, **__):
        place = {4 * first: ("b1", "s1"), 2 * first: ("b2", "s2")}.get(x.shape[1])
        if place is None:
            return x, aside
        changed.add(place)
        b, s = (SCALES[name] for name in place)
        mean = x.mean(1, keepdim=True)
        low, high = mean.amin((2, 3), keepdim=True), mean.amax((2, 3), keepdim=True)
        mean = (mean - low) / (high - low)
        half = x.shape[1] // 2
        x = torch.cat([x[:, :half] * ((b - 1) * mean + 1), x[:, half:]], 1)
        return x, fourier_filter(aside, s)

    unet_2d_blocks.apply_freeu = apply_freeu
    model.enable_freeu(**SCALES)
    outputs = []
    for i, time in enumerate(asked["timesteps"]):
        latents = asked["latents"][i : i + 1].permute(0, 3, 1, 2)
        added = {"text_embeds": asked["pooled"][i : i + 1], "time_ids": asked["sizes"][i : i + 1]}
        with torch.no_grad():
            outputs.append(model(latents, time[None], asked[f"text.{i}"][None], added_cond_kwargs=added).sample)
    asked["freeu"] = last(torch.cat(outputs))
    asked["scales"] = torch.tensor([SCALES[key] for key in ("b1", "b2", "s1", "s2")])
    print(changed, (asked["freeu"] - asked["output"]).abs().max().item())
    save_file(asked, OUT / "golden.safetensors")
    for file in OUT.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    main()
