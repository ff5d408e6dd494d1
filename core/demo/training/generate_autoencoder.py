"""Trains the autoencoder of the demo model that generates.

    python core/demo/training/generate_autoencoder.py --work WORK --steps 4000

reads the pool of generate_pool.py and writes WORK/generate-vae.pt. What is trained
is the library's module, compiled; at the end its maps of latents are scaled so that
latents have a mean of 0 and a spread of 1 in each channel. A number in
WORK/generate-vae-steps overrides the steps at any time."""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from edit_autoencoder import batch, pictures, psnr
from edit_muon import Muon
from generate_networks import autoencoder

CROP = 32  # side in pixels of the parts of pictures that most steps train on, for speed
WHOLE = 0.6  # last part of the steps, which see whole pictures, whose norms differ
RATES = 4e-3, 2e-3  # of Muon and of AdamW
HELD = 512  # pictures that are not trained on


def encode(vae, x):
    """The moments of the latents of pictures."""
    return vae.quant_conv(vae.encoder(x)).float().chunk(2, 1)


def decode(vae, z):
    return vae.decoder(vae.post_quant_conv(z)).float()


def loss_of(vae, x, noise):
    with torch.autocast("cpu", torch.bfloat16):
        mean, logvar = encode(vae, x)
        logvar = logvar.clamp(-20, 10)
        y = decode(vae, mean + noise * (0.5 * logvar).exp())
    difference = y - x
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return difference.abs().mean() + 2 * difference.square().mean() + 5e-4 * kl, y


def optimisers(vae):
    """Muon for the kernels inside, AdamW for the ends and everything else."""
    inside = [p for n, p in vae.named_parameters() if p.ndim > 1 and not n.endswith(("conv_in.weight", "conv_out.weight")) and "quant" not in n]
    kept = {id(p) for p in inside}
    others = [p for p in vae.parameters() if id(p) not in kept]
    return [
        Muon(inside, lr=RATES[0]),
        torch.optim.AdamW(others, lr=RATES[1], betas=(0.9, 0.98), weight_decay=0.0),
    ]


@torch.no_grad()
def whitened(state, held):
    """The weights, scaled so that the latents of these pictures are whitened."""
    vae = autoencoder()
    vae.load_state_dict(state)
    z, _ = encode(vae, held)
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    into, out = vae.quant_conv, vae.post_quant_conv
    into.bias[:4] = (into.bias[:4] - mean) / std
    into.weight[:4] /= std.view(-1, 1, 1, 1)
    into.bias[4:] -= 2 * std.log()
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= std.view(1, -1, 1, 1)
    z, _ = encode(vae, held)
    quality = psnr(decode(vae, z), held)
    print(f"psnr mean {quality.mean():.2f} least {quality.min():.2f} latents {z.mean():.3f} {z.std():.3f}", flush=True)
    return vae.state_dict()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--steps", type=int, default=4000)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--threads", type=int, default=1)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(7)
    rng = np.random.default_rng(7)
    drawn = np.load(args.work / "generate-pool.npz")["pictures"]
    pool, held = drawn[:-HELD], pictures(drawn[-HELD:])
    vae = autoencoder()
    opts = optimisers(vae)
    average = {k: v.detach().clone() for k, v in vae.state_dict().items()}
    step_of = torch.compile(loss_of, dynamic=False)
    path, override, budget, shown = args.work / "generate-vae.pt", args.work / "generate-vae-steps", args.steps, []
    step, marked = 0, time.time()

    def save():
        torch.save({"vae": whitened(average, held), "steps": step}, path)

    while step < budget:
        if step % 20 == 0 and override.exists():
            budget = int(override.read_text() or budget)
        done = step / budget
        for opt, rate in zip(opts, RATES):
            opt.param_groups[0]["lr"] = rate * min(1, (step + 1) / 100) * min(1, 1.6 * (1 - done))
            opt.zero_grad(set_to_none=True)
        crop = CROP if done < 1 - WHOLE else drawn.shape[1]
        x = batch(pool, rng, args.batch * CROP**2 // crop**2, crop)
        loss, y = step_of(vae, x, torch.randn(len(x), 4, crop // 8, crop // 8))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for opt in opts:
            opt.step()
        step += 1
        with torch.no_grad():
            keep = min(0.995, (step + 1) / (step + 10))
            for name, value in vae.state_dict().items():
                average[name].lerp_(value, 1 - keep)
        shown.append((loss.item(), psnr(y.detach(), x).mean().item()))
        if step % 100 == 0:
            ms, marked = (time.time() - marked) * 10, time.time()
            print("step {} loss {:.4f} psnr {:.2f} {:.0f} ms".format(step, *np.mean(shown, 0), ms), flush=True)
            shown = []
        if step % 1000 == 0:
            save()
    save()


if __name__ == "__main__":
    main()
