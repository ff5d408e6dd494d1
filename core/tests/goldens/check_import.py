"""Compares imported networks with the graphs that they were read from, by way of timm.

    TAGBRUSH_IMPORT_TO=target/imported cargo test --release -p tagbrush writes_imports
    python check_import.py target/imported [FIXTURES]

needs torch==2.15.0 timm==1.0.31 safetensors==0.8.0. For each import, timm builds the network that
`config.json` describes, takes the imported tensors (all of them, strictly) and must reproduce the
probabilities that onnxruntime computed with the graph.
"""

import json
import sys
import types
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file


def build(config, tensors):
    arguments = dict(config["model_args"])
    if config.get("global_pool"):
        arguments.setdefault("global_pool", config["global_pool"])
    model = timm.create_model(
        config["architecture"], num_classes=config["num_classes"], **arguments
    ).eval()
    epsilon = config.get("tagbrush", {}).get("norm_eps")
    if epsilon is not None:
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = epsilon
    if (epsilon := config.get("tagbrush", {}).get("final_norm_eps")) is not None:
        model.norm.eps = epsilon
    # SwinV2's position bias comes computed instead of as the network that computes it.
    biases = {k: v for k, v in tensors.items() if k.endswith("position_bias")}
    tensors = {k: v for k, v in tensors.items() if k not in biases}
    for name, bias in biases.items():
        attention = model.get_submodule(name.rsplit(".", 1)[0])
        table = torch.zeros(bias.shape[-1], bias.shape[-1])
        attention.cpb_mlp = torch.nn.Identity()
        del table

        def forward(self, x, mask=None, bias=bias):
            b, n, c = x.shape
            zero = torch.zeros_like(self.q_bias)
            qkv = torch.nn.functional.linear(
                x, self.qkv.weight, torch.cat((self.q_bias, zero, self.v_bias))
            )
            q, k, v = qkv.reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
            normalize = torch.nn.functional.normalize
            attn = normalize(q, dim=-1) @ normalize(k, dim=-1).transpose(-2, -1)
            attn = attn * torch.clamp(self.logit_scale, max=4.605170185988092).exp() + bias
            if mask is not None:
                w = mask.shape[0]
                attn = attn.view(-1, w, self.num_heads, n, n) + mask[None, :, None]
                attn = attn.view(-1, self.num_heads, n, n)
            x = (attn.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c)
            return self.proj(x)

        attention.forward = types.MethodType(forward, attention)
    model.load_state_dict(tensors, strict=True)
    return model


def main():
    imported = Path(sys.argv[1])
    fixtures = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "onnx"
    worst = 0.0
    for folder in sorted(imported.iterdir()):
        config = json.loads((folder / "config.json").read_text())
        tensors = load_file(folder / "model.safetensors")
        golden = load_file(fixtures / folder.name.split("@")[0] / "golden.safetensors")
        model = build(config, tensors)
        preset = config["pretrained_cfg"]
        mean, std = (torch.tensor(preset[key]).view(3, 1, 1) for key in ("mean", "std"))
        images = (golden["input"].float().permute(0, 3, 1, 2) / 255 - mean) / std
        with torch.no_grad():
            probs = torch.sigmoid(model(images))
        difference = (probs - golden["probs"]).abs().max().item()
        worst = max(worst, difference)
        print(f"{folder.name}: {config['architecture']}, off by {difference:.2e}")
    assert worst <= 1e-5, worst


if __name__ == "__main__":
    main()
