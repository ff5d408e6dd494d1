"""Trains the network and the text encoders of the demo model that generates, together.

    python core/demo/training/generate_pool.py --work WORK
    python core/demo/training/generate_autoencoder.py --work WORK
    python core/demo/training/generate_train.py --work WORK --steps 12000 --out core/demo/generate

Everything that has to be kept lies in WORK, and a run that was stopped goes on where
it was. The rate follows the part of the steps that has passed; a number in
WORK/generate-steps overrides them at any time, and one in WORK/generate-single the
part of the pictures that have one shape. The folder is written whenever the state
is saved."""

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

import generate_folder
from edit_muon import Muon
from edit_train import shared
from edit_words import COLOURS, SHAPES
from generate_lessons import SCALES, Exam, Prompts, goals, prepared, texts, told
from generate_networks import LARGE, SMALL, scheduler, text_encoders, unet
from generate_pool import SHAPE_2
from generate_words import tokenizers

RATES = 3e-3, 2e-3  # of Muon and of AdamW
FLAT = 0.55  # part of the steps after which the rate falls
SAVED, MARKED = 100, 400  # steps between two states that are kept, and between two exams


class Networks(nn.Module):
    """The three networks, and heads that only help them to learn: they read off the
    last state of a prompt, and off its vector, which colours it names for what."""

    def __init__(self):
        super().__init__()
        self.small, self.large = text_encoders()
        self.unet = unet()
        for model in (self.small, self.large):
            model.set_attn_implementation("eager")
        answers = (1 + len(SHAPES)) * (len(COLOURS) + 1)
        self.read = nn.ModuleList([nn.Linear(SMALL + LARGE, answers), nn.Linear(LARGE, answers)])

    def optimisers(self):
        """Muon for the matrices and kernels inside, AdamW for the rest."""
        inside = lambda n: "_block" in n or ".layers." in n
        matrices = [p for n, p in self.named_parameters() if p.ndim > 1 and inside(n)]
        kept = {id(p) for p in matrices}
        others = [p for p in self.parameters() if id(p) not in kept]
        return [
            Muon(matrices, lr=RATES[0], weight_decay=0.01),
            torch.optim.AdamW(others, lr=RATES[1], betas=(0.9, 0.98), weight_decay=0.0),
        ]


def times(n):
    """Evenly spread for the most part; much noise, where it is decided what is seen
    and where, more often."""
    t = torch.rand(n)
    return torch.where(torch.rand(n) < 0.4, t.sqrt(), t).mul(1000).long().clamp(max=999)


class Rounded:
    """The network in bfloat16, in which it is computed; the weights that are trained
    stay in single precision."""

    def __init__(self, network):
        self.network = unet().bfloat16()
        self.network.set_attn_processor(AttnProcessor())  # the fused one is slow backwards on CPUs
        self.pairs = list(zip(network.parameters(), self.network.parameters()))

    def __call__(self, x, t, words, vector, sizes):
        with torch.no_grad():
            torch._foreach_copy_([p for _, p in self.pairs], [p for p, _ in self.pairs])
        x, words, vector, sizes = (v.bfloat16() for v in (x, words, vector, sizes))
        added = {"text_embeds": vector, "time_ids": sizes}
        return self.network(x, t, words, added_cond_kwargs=added, return_dict=False)[0].float()

    def give_back(self):
        """The gradients to the weights that are trained."""
        for kept, p in self.pairs:
            kept.grad, p.grad = p.grad.float(), None


def loss_of(networks, rounded, prompts, rng, z, shown, alphas):
    noise, t = torch.randn(z.shape), times(len(z))
    signal, grain = alphas[t].sqrt().view(-1, 1, 1, 1), (1 - alphas[t]).sqrt().view(-1, 1, 1, 1)
    ids, blank = prompts.ask(rng, shown)
    sizes = told(len(z), torch.empty(len(z)).uniform_(*SCALES))
    with torch.autocast("cpu", torch.bfloat16):
        words, vector = texts(networks.small, networks.large, ids)
    v = rounded(signal * z + grain * noise, t, words, vector, sizes)
    ends = (ids[0] == prompts.tokenizers[0].eos_token_id).int().argmax(1)
    wanted, help_ = goals(shown, blank), 0
    for head, x in zip(networks.read, (words[torch.arange(len(ends)), ends], vector)):
        answers = head(x.float()).view(len(z), 1 + len(SHAPES), -1)
        help_ = help_ + F.cross_entropy(answers.flatten(0, 1), wanted.flatten(), ignore_index=-1)
    return (v - (signal * noise - grain * z)).square().mean(), help_


def number(path, default):
    """What is written in a file, if there is one."""
    return float(path.read_text() or default) if path.exists() else default


def train(rank, args):
    torch.set_num_threads(1)
    if args.ranks > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(args.port)}
        dist.init_process_group("gloo", rank=rank, world_size=args.ranks)
    vae, vae_steps, latents, pool = prepared(args.work)
    with tempfile.TemporaryDirectory() as folder:
        prompts = Prompts(tokenizers(Path(folder)))
    torch.manual_seed(7)
    networks = Networks()
    opts = networks.optimisers()
    params = [p for opt in opts for p in opt.param_groups[0]["params"]]
    average = {k: v.detach().clone() for k, v in networks.state_dict().items()}
    step, spent, path = 0, 0.0, args.work / "generate-train.pt"
    if path.exists():
        kept = torch.load(path)
        networks.load_state_dict(kept["raw"])
        average, step, spent = kept["average"], kept["step"], kept["spent"]
        for opt, state in zip(opts, kept["opts"]):
            opt.load_state_dict(state)
    own, rng = np.random.default_rng([step, rank]), random.Random(f"{step} {rank}")
    torch.manual_seed(step * 16 + rank)
    alphas, exam = scheduler().alphas_cumprod, Exam(64, None if args.single < 1 else 1)
    names = [n for n in average if average[n].is_floating_point()]
    state = networks.state_dict()
    old, new = [average[n] for n in names], [state[n] for n in names]
    budget, at_once, shown = args.steps, time.time(), []

    def save():
        kept = {"raw": networks.state_dict(), "average": average, "step": step, "spent": spent}
        torch.save(kept | {"opts": [opt.state_dict() for opt in opts]}, path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)
        notes = {"steps": step, "minutes": spent / 60, "batch": args.batch * args.ranks, "autoencoder_steps": vae_steps}
        (args.work / "generate-notes.json").write_text(json.dumps(notes))
        generate_folder.write(args.out, vae.state_dict(), {k: v for k, v in average.items() if not k.startswith("read.")})

    def mark():
        shadow = Networks()
        shadow.load_state_dict(average)
        exam.mark(shadow, vae, prompts, 4.0)

    rounded = Rounded(networks.unet)
    kinds = [np.flatnonzero((pool[:, SHAPE_2] < 0).numpy() == alone) for alone in (False, True)]
    single = args.single

    while step < budget:
        if step % 20 == 0:
            budget = number(args.work / "generate-steps", budget)
            single = number(args.work / "generate-single", single)
        alone = own.random(args.batch) < single
        at = np.where(alone, own.choice(kinds[1], args.batch), own.choice(kinds[0], args.batch))
        loss, help_ = loss_of(networks, rounded, prompts, rng, latents[at].float(), pool[at], alphas)
        done = step / budget
        for opt, rate in zip(opts, RATES):
            opt.param_groups[0]["lr"] = rate * min(1, (step + 1) / 100) * min(1, max(0.01, (1 - done) / (1 - FLAT)))
            opt.zero_grad(set_to_none=True)
        (loss + 0.05 * max(0.1, 1 - done / 0.6) * help_).backward()
        rounded.give_back()
        passed, at_once = time.time() - at_once, time.time()
        spent, budget = shared(params, [spent + passed, budget] if rank == 0 else [0, 0], args.ranks)
        budget = round(budget)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        for opt in opts:
            opt.step()
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(old, new, 1 - min(0.999, (step + 1) / (step + 10)))
        if rank > 0:
            continue
        shown.append((loss.item(), help_.item(), passed))
        if step % 50 == 0:
            v, h, ms = np.mean(shown, 0) * (1, 1, 1000)
            print(f"step {step} v {v:.4f} hints {h:.3f} {ms:.0f} ms {spent / 60:.1f} min {done:.0%}", flush=True)
            shown = []
        if step % SAVED == 0 or step >= budget:
            save()
        if step % MARKED == 0 or step >= budget:
            mark()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True, help="the model folder to write")
    options.add_argument("--steps", type=int, default=12_000)
    options.add_argument("--single", type=float, default=1.0, help="part of the pictures that have one shape")
    options.add_argument("--batch", type=int, default=64, help="pictures per step and process")
    options.add_argument("--ranks", type=int, default=2, help="processes, of one thread each, that share the work")
    options.add_argument("--port", type=int, default=29519, help="where they talk to each other")
    args = options.parse_args()
    prepared(args.work)  # once, so that no process has to wait
    if args.ranks == 1:
        train(0, args)
    else:
        torch.multiprocessing.spawn(train, (args,), args.ranks)


if __name__ == "__main__":
    main()
