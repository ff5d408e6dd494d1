"""Speed of the networks on the CPU against onnxruntime, OpenVINO and torch.

Builds each network at its published size with random weights (10,861 labels, 448 px), gives the same
weights to every engine, compares all logits with torch's in f32, then times the engines in turn for
several rounds: network only, pictures already at the input's size. Results go to `results/cpu.json`.
Nothing else should run on the machine.

    cargo build --release --example worker && python benches/cpu.py [--models vit,swinv2] [--rounds 5]

`TAGBRUSH_ISA` caps the instructions that tagbrush uses, as always.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime
import openvino
import timm
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "core/tests/goldens"))
from full_size_parity import LABELS, MODELS, ROOT, write_folder  # noqa: E402
from make_timm import randomise, to_input  # noqa: E402
from process import Process  # noqa: E402

THRESHOLD = 0.35
PICTURES = 8


class Tagbrush(Process):
    """A process of the Rust library: see `worker.rs`."""

    def __init__(self, folder, precision):
        super().__init__([ROOT / "target/release/examples/worker", folder, precision, folder / "pixels"])

    def logits(self, folder):
        self.ask(f"scores {folder / 'scores'}")
        scores = np.fromfile(folder / "scores", dtype="<f4").reshape(PICTURES, LABELS).astype(np.float64)
        return np.log(scores / (1 - scores))

    def seconds(self, batch):
        return float(self.ask(f"time {batch} {batch}"))


class Peer:
    """An engine in this process: a function from a batch of inputs to logits."""

    def __init__(self, forward, inputs):
        self.forward, self.inputs = forward, inputs

    def logits(self, _):
        return np.concatenate([np.asarray(self.forward(self.inputs[i : i + 1])) for i in range(PICTURES)])

    def seconds(self, batch):
        start = time.perf_counter()
        self.forward(self.inputs[:batch])
        return time.perf_counter() - start


def onnx_engine(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x.numpy()})[0]


def openvino_engine(path, precision):
    core, graphs = openvino.Core(), {}
    hint = {"PERFORMANCE_HINT": "LATENCY", **({"INFERENCE_PRECISION_HINT": precision} if precision else {})}

    def forward(x):
        batch = x.shape[0]
        if batch not in graphs:
            graphs.clear()  # Each holds the weights once more.
            model = core.read_model(path)
            model.reshape([batch, 3, 448, 448])
            graphs[batch] = core.compile_model(model, "CPU", hint)
            forward.precision = str(graphs[batch].get_property("INFERENCE_PRECISION_HINT"))
        return graphs[batch]([x.numpy()])[0]

    return forward


def torch_engine(model, dtype):
    model = model.to(dtype)

    def forward(x):
        with torch.inference_mode():
            return model(x.to(dtype)).float().numpy()

    return forward


def network(name):
    """A network whose logits have about the spread of a real one's."""
    architecture, args = MODELS[name]
    model = timm.create_model(architecture, num_classes=LABELS, **args).eval()
    randomise(model, torch.Generator().manual_seed(1))
    pixels = np.random.RandomState(1).randint(0, 256, (PICTURES, 448, 448, 3), dtype=np.uint8)
    inputs = to_input(pixels)
    with torch.inference_mode():
        logits = model(inputs)
        scale = min(1.0, 2.0 / logits.std().item())
        head = model.get_classifier()
        head.weight.mul_(scale)
        head.bias.mul_(scale)
    return model, architecture, args, pixels, inputs, (logits * scale).numpy()


def bench(name, rounds, batches, wanted):
    model, architecture, args, pixels, inputs, expected = network(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        write_folder(folder, architecture, args, model)
        (folder / "pixels").write_bytes(pixels.tobytes())
        graph = export(model, folder)
        make = {
            "tagbrush f32": lambda: Tagbrush(folder, "f32"),
            "tagbrush bf16": lambda: Tagbrush(folder, "bf16"),
            "onnxruntime f32": lambda: Peer(onnx_engine(graph), inputs),
            "openvino f32": lambda: Peer(openvino_engine(graph, "f32"), inputs),
            "openvino default": lambda: Peer(openvino_engine(graph, None), inputs),
            "torch f32": lambda: Peer(torch_engine(model, torch.float32), inputs),
            "torch bf16": lambda: Peer(torch_engine(timm_copy(model, architecture, args), torch.bfloat16), inputs),
        }
        engines = {key: build() for key, build in make.items() if not wanted or key in wanted}
        rows = {}
        tags = expected > np.log(THRESHOLD / (1 - THRESHOLD))
        for key, engine in engines.items():
            logits = engine.logits(folder)
            difference = float(np.abs(logits - expected).max())
            found = logits > np.log(THRESHOLD / (1 - THRESHOLD))
            agreement = float((found & tags).sum() / (found | tags).sum())
            exact = key.endswith("f32")
            assert difference < (1e-3 if exact else 0.5), (key, difference)
            rows[key] = {"largest difference of logits": difference, "tags in common": agreement}
            print(f"{name:12} {key:18} differs by {difference:.1e}, tags in common {agreement:.4f}", flush=True)
        for batch in batches:
            for engine in engines.values():
                engine.seconds(batch)
            rates = {key: [] for key in engines}
            for _ in range(rounds):
                for key, engine in engines.items():
                    time.sleep(0.1)  # Threads of the last engine that still spin.
                    rates[key].append(batch / engine.seconds(batch))
            for key, values in rates.items():
                rows[key][f"batch {batch}"] = {"images/s": statistics.median(values), "all": values}
                print(f"{name:12} {key:18} batch {batch}: {statistics.median(values):6.3f} images/s ({min(values):.3f} to {max(values):.3f})", flush=True)
        for key, engine in engines.items():
            if isinstance(engine, Tagbrush):
                rows[key]["largest resident bytes"] = int(engine.ask("memory"))
                engine.process.stdin.close()
        rows.setdefault("onnxruntime f32", {})["largest resident bytes"] = peer_memory(graph)
    return rows


def export(model, folder):
    """The network as an ONNX file with a free batch size."""
    axes = {"x": {0: "b"}, "y": {0: "b"}}
    for module in model.modules():
        if type(module).__name__ == "EvaAttention":
            module.fused_attn = False  # The same products and softmax; the exporter fails on the fused call of timm 1.0.31.
    torch.onnx.export(model, torch.zeros(1, 3, 448, 448), folder / "graph.onnx", input_names=["x"], output_names=["y"], dynamic_axes=axes, opset_version=17, dynamo=False)
    return folder / "graph.onnx"


def timm_copy(model, architecture, args):
    copy = timm.create_model(architecture, num_classes=LABELS, **args).eval()
    copy.load_state_dict(model.state_dict())
    return copy


def peer_memory(graph):
    """Peak resident bytes of a process that runs one picture through onnxruntime."""
    code = (
        "import numpy, onnxruntime, sys\n"
        "s = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "s.run(None, {'x': numpy.zeros((1, 3, 448, 448), numpy.float32)})\n"
        "print([l for l in open('/proc/self/status') if l.startswith('VmHWM')][0].split()[1])\n"
    )
    result = subprocess.run([sys.executable, "-c", code, graph], capture_output=True, text=True, check=True)
    return int(result.stdout) * 1024


def processor():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="vit,swinv2,convnext,eva02-large")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--engines", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", default=str(ROOT / "benches/results/cpu.json"))
    options = parser.parse_args()
    batches = [int(batch) for batch in options.batches.split(",")]
    wanted = [engine for engine in options.engines.split(",") if engine]
    doctor = subprocess.run([ROOT / "target/release/tagbrush", "doctor"], capture_output=True, text=True).stdout
    result = {
        "what": "images per second of the network alone, 448 px, 10,861 labels, random weights",
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "kernels": next((line.split(None, 1)[1] for line in doctor.splitlines() if line.startswith("kernels")), "?"),
        "variable": os.environ.get("TAGBRUSH_ISA", ""),
        "versions": {"onnxruntime": onnxruntime.__version__, "openvino": openvino.__version__, "torch": torch.__version__, "timm": timm.__version__},
        "models": {},
    }
    for name in options.models.split(","):
        result["models"][name] = bench(name, options.rounds, batches, wanted)
        path = pathlib.Path(options.output)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
