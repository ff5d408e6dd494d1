"""Writes `generate-sharpness.safetensors`: Fooocus' sharpness as its formula says, with kornia's joint bilateral blur.

Of each case `x`, `seen` and `sharpened`, `(h, w, c)`, for a sharpness of 200 after 0.7 of the way.

    pip install -r requirements.txt && python make_generate_sharpness.py
"""

import pathlib

import torch
from kornia.filters import joint_bilateral_blur
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parent / "generate-sharpness.safetensors"
SHARPNESS, PROGRESS = 200, 0.7


def main():
    generator, tensors = torch.Generator().manual_seed(3), {}
    for name, (height, width) in {"small": (8, 8), "wide": (9, 20)}.items():
        seen = torch.randn(1, 4, height, width, generator=generator).cumsum(3) * 0.4 + 0.2
        x = seen + 0.8 * torch.randn(seen.shape, generator=generator)
        deviation, mean = torch.std_mean(seen, dim=(1, 2, 3), keepdim=True)
        guide = (seen - mean) / (deviation + 1e-5)
        noise = x - seen
        blurred = joint_bilateral_blur(noise.double(), guide.double(), (13, 13), 3.0, (3.0, 3.0)).float()
        share = 0.001 * SHARPNESS * PROGRESS
        sharpened = x - (blurred * share + noise * (1 - share))
        for key, value in {"x": x, "seen": seen, "sharpened": sharpened}.items():
            tensors[f"{name}.{key}"] = value[0].permute(1, 2, 0).contiguous()
    save_file(tensors, OUT)


if __name__ == "__main__":
    main()
