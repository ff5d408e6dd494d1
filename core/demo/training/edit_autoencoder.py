"""Trains the autoencoder of the demo edit model.

    python core/demo/training/edit_autoencoder.py --work WORK --minutes 15

reads the pools of edit_pool.py and writes WORK/vae.pt, with the mean and the spread
of its latents. The networks are the library's; the forward pass is written out for
single pictures, for which three-dimensional kernels are plain ones."""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from edit_muon import Muon
from edit_networks import autoencoder

CROP = 32  # side in pixels of the parts of pictures that it trains on, for speed
RATES = 5e-3, 3e-3  # of Muon and of AdamW


def plane(module):
    """The part of a kernel that works on single pictures."""
    if hasattr(module, "matrix"):
        side = module.weight.shape[-1]
        return module.matrix.view(len(module.matrix), -1, side, side)
    return module.weight[:, :, -1] if module.weight.ndim == 5 else module.weight


def conv(module, x):
    kernel = plane(module)
    return F.conv2d(x, kernel, module.bias, padding=kernel.shape[-1] // 2)


def unfold(vae):
    """Gives the convolutions matrices to train in place of their kernels."""
    for module in vae.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            module.matrix = nn.Parameter(plane(module).detach().flatten(1).clone())
            module.weight.requires_grad_(False)


def fold(state):
    """The library's weights from those of an unfolded autoencoder."""
    state = dict(state)
    for name in [n for n in state if n.endswith(".matrix")]:
        weight = state[name.replace(".matrix", ".weight")].clone()
        part = weight[:, :, -1] if weight.ndim == 5 else weight
        part.copy_(state.pop(name).view_as(part))
        state[name.replace(".matrix", ".weight")] = weight
    return state


def optimisers(vae):
    """Muon for the matrices inside, AdamW for the ends and everything else."""
    ends = ("encoder.conv_in.matrix", "decoder.conv_out.matrix")
    named = {n: p for n, p in vae.named_parameters() if p.requires_grad}
    inside = [p for n, p in named.items() if p.ndim == 2 and n not in ends]
    others = [p for n, p in named.items() if p.ndim != 2 or n in ends]
    return [
        Muon(inside, lr=RATES[0]),
        torch.optim.AdamW(others, lr=RATES[1], betas=(0.9, 0.98), weight_decay=0.0),
    ]


def norm(module, x):
    x = x.float()
    return x * (module.scale * torch.rsqrt(x.square().sum(1, keepdim=True).clamp_min(1e-24))) * module.gamma.view(1, -1, 1, 1)


def residual(block, x):
    h = conv(block.conv1, F.silu(norm(block.norm1, x)))
    h = conv(block.conv2, F.silu(norm(block.norm2, h)))
    return h + (conv(block.conv_shortcut, x) if hasattr(block.conv_shortcut, "weight") else x)


def attention(block, x):
    b, c, h, w = x.shape
    q, k, v = conv(block.to_qkv, norm(block.norm, x)).flatten(2).transpose(1, 2).chunk(3, -1)
    mixed = F.scaled_dot_product_attention(q, k, v)
    return x + conv(block.proj, mixed.transpose(1, 2).reshape(b, c, h, w))


def middle(block, x):
    x = residual(block.resnets[0], x)
    return residual(block.resnets[1], attention(block.attentions[0], x))


def encode(vae, x):
    """The moments of the latents of pictures."""
    x = conv(vae.encoder.conv_in, x)
    for block in vae.encoder.down_blocks:
        if hasattr(block, "resample"):
            x = F.conv2d(F.pad(x, (0, 1, 0, 1)), plane(block.resample[1]), block.resample[1].bias, stride=2)
        else:
            x = residual(block, x)
    x = F.silu(norm(vae.encoder.norm_out, middle(vae.encoder.mid_block, x)))
    return conv(vae.quant_conv, conv(vae.encoder.conv_out, x)).float().chunk(2, 1)


def decode(vae, z):
    x = middle(vae.decoder.mid_block, conv(vae.decoder.conv_in, conv(vae.post_quant_conv, z)))
    for block in vae.decoder.up_blocks:
        for part in block.resnets:
            x = residual(part, x)
        if block.upsamplers is not None:
            x = conv(block.upsamplers[0].resample[1], F.interpolate(x, scale_factor=2.0, mode="nearest"))
    return conv(vae.decoder.conv_out, F.silu(norm(vae.decoder.norm_out, x))).float()


def pictures(array):
    """Bytes, channels last, as the autoencoder takes them."""
    return torch.from_numpy(array).permute(0, 3, 1, 2).float().contiguous().div_(127.5).sub_(1)


def batch(pool, rng, size, crop):
    x = pool[np.sort(rng.integers(len(pool), size=size))]
    x = np.stack([lively(picture, rng, crop) for picture in x])
    return pictures(x[:, :, ::-1].copy() if rng.random() < 0.5 else x)


def lively(picture, rng, side, tries=3):
    """A part of the picture, with something in it if a few tries find it."""
    tops, lefts = rng.integers(0, np.subtract(picture.shape[:2], side - 1)[:, None], (2, tries))
    return max((picture[t : t + side, l : l + side] for t, l in zip(tops, lefts)), key=np.std)


def psnr(a, b):
    """Over the range of eight bits, picture by picture."""
    error = (a.clamp(-1, 1) - b).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error.clamp_min(1e-9))


def loss_of(vae, x, noise, kl_weight):
    with torch.autocast("cpu", torch.bfloat16):
        mean, logvar = encode(vae, x)
        logvar = logvar.clamp(-20, 10)
        y = decode(vae, mean + noise * (0.5 * logvar).exp())
    difference = y - x
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return difference.abs().mean() + 2 * difference.square().mean() + kl_weight * kl, y


def save(path, vae, average, step, opts, held):
    """The averaged weights, and the mean and spread of their latents."""
    shadow = autoencoder()
    shadow.load_state_dict(fold(average))
    with torch.no_grad():
        z, _ = encode(shadow, held)
        quality = psnr(decode(shadow, z), held)
    latents = {"latents_mean": z.mean((0, 2, 3)).tolist(), "latents_std": z.std((0, 2, 3)).tolist()}
    kept = {"vae": shadow.state_dict(), "average": average, "raw": vae.state_dict(), "opts": [opt.state_dict() for opt in opts]}
    torch.save({**kept, "step": step, **latents}, path)
    return quality.mean().item(), quality.min().item()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--minutes", type=float, default=15, help="a number in WORK/vae-minutes overrides it at any time")
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--threads", type=int, default=1, help="more than the free cores make it much slower")
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(7)
    rng = np.random.default_rng(int(time.time()))
    drawn = np.load(args.work / "pool-64x64.npz")["pictures"]
    pool, held = drawn[:-128].reshape(-1, *drawn.shape[2:]), pictures(drawn[-128:].reshape(-1, *drawn.shape[2:]))

    vae = autoencoder()
    unfold(vae)
    opts = optimisers(vae)
    path, start = args.work / "vae.pt", 0
    if path.exists():
        kept = torch.load(path)
        vae.load_state_dict(kept["raw"])
        for opt, state in zip(opts, kept["opts"]):
            opt.load_state_dict(state)
        start = kept["step"]
    average = {k: v.detach().clone() for k, v in (kept["average"] if start else vae.state_dict()).items()}
    step_of = torch.compile(loss_of, dynamic=False)
    step, began, saved, budget, shown = start, time.time(), time.time(), args.minutes, []
    while True:
        override = args.work / "vae-minutes"
        if override.exists():
            budget = float(override.read_text() or budget)
        done = (time.time() - began) / 60 / budget
        if done >= 1:
            break
        for opt, rate in zip(opts, RATES):
            opt.param_groups[0]["lr"] = rate * min(1, (step + 1) / 100) * min(1, 1.6 * (1 - done))
        x = batch(pool, rng, args.batch, CROP)
        noise = torch.randn(len(x), vae.config.z_dim, x.shape[2] // 8, x.shape[3] // 8)
        loss, y = step_of(vae, x, noise, 5e-4)
        for opt in opts:
            opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for opt in opts:
            opt.step()
        step += 1
        with torch.no_grad():
            if step == start + 1:
                print(f"first step after {time.time() - began:.0f} s", flush=True)
                began = time.time()
            keep = min(0.995, (step + 1) / (step + 10))
            for name, value in vae.state_dict().items():
                average[name].lerp_(value, 1 - keep)
        shown.append((loss.item(), psnr(y.detach(), x).mean().item()))
        if step % 50 == 0:
            a, b = np.mean(shown, 0)
            ms = (time.time() - began) / (step - start) * 1000
            print(f"step {step} loss {a:.4f} psnr {b:.2f} {ms:.0f} ms/step {done:.0%}", flush=True)
            shown = []
        if time.time() - saved > 180:
            print("saved: psnr mean {:.2f} least {:.2f}".format(*save(path, vae, average, step, opts, held)), flush=True)
            saved = time.time()
    print("saved: psnr mean {:.2f} least {:.2f}".format(*save(path, vae, average, step, opts, held)), flush=True)


if __name__ == "__main__":
    main()
