"""Muon for many small matrices: as torch.optim.Muon with `match_rms_adamw`, but
matrices of one shape are worked on together, which is several times as fast.
Kernels of convolutions are matrices with a row for each channel that they make."""

import torch

COEFFICIENTS = (3.4445, -4.775, 2.0315)


def orthogonal(stack, rounds):
    """Nearly orthogonal matrices with the directions of those in the stack."""
    a, b, c = COEFFICIENTS
    x = stack.bfloat16()
    x = x / x.float().norm(dim=(1, 2), keepdim=True).clamp_min(1e-7).bfloat16()
    for _ in range(rounds):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.float()


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0, rounds=4):
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "rounds": rounds})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            alike = {}
            for p in group["params"]:
                if p.grad is not None:
                    shape = len(p), p.numel() // len(p)
                    alike.setdefault((min(shape), max(shape)), []).append(p)
            for (_, longest), params in alike.items():
                self._update(params, longest, **{k: v for k, v in group.items() if k != "params"})

    def _update(self, params, longest, lr, momentum, weight_decay, rounds):
        upright = [len(p) ** 2 > p.numel() for p in params]
        flat = [p.grad.flatten(1) for p in params]
        grads = torch.stack([grad.mT if turn else grad for grad, turn in zip(flat, upright)])
        kept = self.state[params[0]]
        if "momentum" not in kept:
            kept["momentum"] = torch.zeros_like(grads)
        kept["momentum"].lerp_(grads, 1 - momentum)
        found = orthogonal(grads.lerp(kept["momentum"], momentum), rounds)
        for p, turn, change in zip(params, upright, found):
            change = (change.mT if turn else change).reshape(p.shape)
            p.mul_(1 - lr * weight_decay).add_(change, alpha=-lr * 0.2 * longest**0.5)
