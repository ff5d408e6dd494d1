"""Writes `core/src/models/timm_presets.json`: the default arguments behind timm's architecture names.

A published `config.json` names an architecture (`vit_base_patch16_224`) and lists only what differs
from it, so the defaults of every name of the four supported families are needed to read one. They
are read from timm itself, by calling every entry point with a builder that records its arguments.

    pip install -r requirements.txt && python make_presets.py
"""

import functools
import inspect
import json
import pathlib

import timm
from timm.layers import LayerNorm, LayerNormFp32, RmsNorm
from timm.models import convnext, eva, swin_transformer_v2, vision_transformer

FAMILIES = {
    "vit": (vision_transformer, "VisionTransformer"),
    "eva": (eva, "Eva"),
    "swin_v2": (swin_transformer_v2, "SwinTransformerV2"),
    "convnext": (convnext, "ConvNeXt"),
}
NORMS = {LayerNorm: "layernorm", LayerNormFp32: "layernorm", RmsNorm: "rmsnorm"}
# Arguments of the builder, not of the network.
BUILDER = {"pretrained_filter_fn", "pretrained_strict", "feature_cfg", "pretrained_cfg", "kwargs_filter"}


class Recorded(Exception):
    pass


def plain(args):
    """The arguments as JSON values, or the name of the first one that cannot be one."""
    result = {}
    for name, value in args.items():
        if name in BUILDER:
            continue
        if isinstance(value, functools.partial) and value.func in NORMS and set(value.keywords) == {"eps"}:
            result["norm_layer"] = NORMS[value.func]
            result["norm_eps"] = value.keywords["eps"]
        elif value in NORMS if inspect.isclass(value) else False:
            result[name] = NORMS[value]
        elif callable(value):
            return None, f"{name}={getattr(value, '__name__', type(value).__name__)}"
        else:
            result[name] = value
    return result, None


def main():
    presets = {}
    for family, (module, network) in FAMILIES.items():
        def record(cls, variant, pretrained, **kwargs):
            raise Recorded(cls.__name__, kwargs)

        module.build_model_with_cfg = record
        for name in timm.list_models(module=module.__name__.rsplit(".", 1)[-1]):
            if name.startswith("test_"):
                continue
            try:
                timm.model_entrypoint(name)()
            except Recorded as recorded:
                cls, kwargs = recorded.args
            if cls != network:
                continue
            args, obstacle = plain(kwargs)
            presets[name] = {"family": family, "args": args} if args is not None else {
                "family": family, "unsupported": obstacle}
    path = pathlib.Path(__file__).resolve().parents[2] / "src/models/timm_presets.json"
    lines = [f"  {json.dumps(name)}: {json.dumps(presets[name])}" for name in sorted(presets)]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(presets)} architectures -> {path.name}")


if __name__ == "__main__":
    main()
