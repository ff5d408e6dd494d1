"""Makes the ONNX and SavedModel fixtures below `onnx/`: shrunken taggers with random weights.

Two environments, since TensorFlow and PyTorch rarely agree on one (Python 3.11 or newer):

    pip install tensorflow-cpu==2.21.0 tf-keras==2.21.0 tf2onnx==1.17.0 onnx==1.23.2 \\
        onnxruntime==1.31.1 safetensors==0.8.0
    TF_USE_LEGACY_KERAS=1 python make_onnx.py keras [CASE ...]

    pip install torch==2.15.0 timm==1.0.31 onnx==1.23.2 onnxscript onnxruntime==1.31.1 \\
        safetensors==0.8.0
    python make_onnx.py torch [CASE ...]

`--out DIR` writes elsewhere, `--full` makes the models in their published size instead (some
hundred megabytes each; they are for measuring, not for committing).

The Keras networks have the topology and the defaults of the published version 2 taggers (epsilon
1e-3, exact GELU, LayerScale; input NHWC BGR 0..255, output probabilities) and go through
tf2onnx, as those files did. The timm networks are wrapped in the same contract and exported by
`torch.onnx`, as the files of version 3 were. Every weight is perturbed, so that an importer that
drops or swaps one cannot pass.
"""

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import math
import shutil
import struct
import json
import tempfile
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
CLASSES = 11


# --------------------------------------------------------------------------- files of one case


def write_safetensors(path, tensors):
    """The safetensors format, by hand: the TensorFlow environment needs no further package."""
    header, data = {}, b""
    for name, value in tensors.items():
        raw = np.ascontiguousarray(value).tobytes()
        header[name] = {
            "dtype": {"float32": "F32", "uint8": "U8"}[str(value.dtype)],
            "shape": list(value.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_labels(path, classes):
    lines = ["tag_id,name,category,count"]
    for i in range(classes):
        if i < 4:
            name, category = ["general", "sensitive", "questionable", "explicit"][i], 9
        elif i < classes - 3:
            name, category = f"tag_{i}", 0
        else:
            name, category = f"name_{i}_(series)", 4
        lines.append(f"{i},{name},{category},{1000 - i}")
    path.write_text("\n".join(lines) + "\n")


def finish(folder, size, classes, seed):
    """Runs the graph and writes what a native network has to reproduce."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    name = session.get_inputs()[0].name
    # One by one: the older files have their batch fixed to 1.
    each = [images[i : i + 1].astype(np.float32) for i in range(2)]
    probs = np.concatenate([session.run(None, {name: image})[0] for image in each])
    write_safetensors(folder / "golden.safetensors", {"input": images, "probs": probs})
    write_labels(folder / "selected_tags.csv", classes)
    spread = np.abs(probs[0] - probs[1]).max()
    kb = (folder / "model.onnx").stat().st_size / 1000
    print(f"{folder.name}: {kb:.0f} kB, probs {probs.min():.3f}..{probs.max():.3f}, "
          f"images differ by {spread:.3f}")
    assert np.isfinite(probs).all() and spread > 1e-3


# --------------------------------------------------------------------------- Keras definitions


def perturb(model, seed):
    """Gives every variable a value that is neither 0 nor 1 nor another variable's value."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape, name = tuple(variable.shape), variable.name
        if "logit_scale" in name:
            # Above ln(100) too, so that the clamp matters.
            value = rng.uniform(1.5, 5.0, shape)
        elif any(key in name for key in ("gamma", "skip", "variance")):
            value = rng.uniform(0.5, 1.5, shape)
        elif any(key in name for key in ("beta", "bias", "mean")):
            value = rng.normal(0, 0.2, shape)
        elif "pos_embed" in name or "relative_position_embedding" in name:
            value = rng.normal(0, 0.5, shape)
        elif "depthwise" in name:
            value = rng.normal(0, 0.3, shape)
        else:
            fan_in = max(int(np.prod(shape[:-1])), 1)
            value = rng.normal(0, 1.2 / math.sqrt(fan_in), shape)
        variable.assign(value.astype(np.float32))


def keras_models():
    import tensorflow as tf
    import tf_keras as keras

    K = keras.layers

    # TensorFlow 2.21 has an Erfc operation in its GELU, which tf2onnx does not know; the releases
    # that the published files were made with wrote it with Erf.
    tf.nn.gelu = lambda x, approximate=False, name=None: 0.5 * x * (
        1.0 + tf.math.erf(x / math.sqrt(2.0))
    )
    import tf_keras.src.activations as activations
    activations.tf.nn.gelu = tf.nn.gelu

    def scaled(x):
        return (tf.cast(x, tf.float32) - 127.5) * (1 / 127.5)

    class Scale(K.Layer):
        """LayerScale."""

        def __init__(self, channels, **kwargs):
            super().__init__(**kwargs)
            self.channels = channels
            self.skip = self.add_weight(name="skip", shape=(channels,), initializer="ones")

        def call(self, x):
            return x * self.skip

        def get_config(self):
            return {**super().get_config(), "channels": self.channels}

    class Positions(K.Layer):
        def build(self, shape):
            self.pos_embed = self.add_weight(name="pos_embed", shape=(shape[-2], shape[-1]))

        def call(self, x):
            return x + self.pos_embed

    class ResponseNorm(K.Layer):
        def build(self, shape):
            self.beta = self.add_weight(name="beta", shape=(1, 1, 1, shape[-1]))
            self.gamma = self.add_weight(name="gamma", shape=(1, 1, 1, shape[-1]))

        def call(self, x):
            per_channel = tf.norm(x, ord="euclidean", axis=(1, 2), keepdims=True)
            ratio = per_channel / (tf.reduce_mean(per_channel, axis=-1, keepdims=True) + 1e-6)
            return self.gamma * (x * ratio) + self.beta + x

    def head(x, classes):
        x = K.Dense(classes, name="predictions_dense")(x)
        return K.Activation("sigmoid", name="predictions_sigmoid")(x)

    def vit(size, patch, dim, depth, heads, mlp, classes):
        inputs = K.Input(shape=(size, size, 3))
        x = scaled(inputs)
        x = K.Conv2D(dim, patch, strides=patch, padding="same", name="root_conv2d_01")(x)
        x = K.Reshape((-1, dim))(x)
        x = Positions()(x)
        for i in range(depth):
            y = K.LayerNormalization(name=f"block{i}_norm_01")(x)
            y = K.MultiHeadAttention(num_heads=heads, key_dim=dim // heads)(y, y)
            x = K.Add()([Scale(dim)(y), x])
            y = K.LayerNormalization(name=f"block{i}_norm_02")(x)
            y = K.Dense(mlp, name=f"block{i}_cm_dense_01")(y)
            y = K.Activation("gelu", name=f"block{i}_cm_act_01")(y)
            y = K.Dense(dim, name=f"block{i}_cm_dense_02")(y)
            x = K.Add()([Scale(dim)(y), x])
        x = K.LayerNormalization(name="predictions_norm")(x)
        x = K.GlobalAveragePooling1D(name="predictions_globalavgpooling")(x)
        return keras.Model(inputs, head(x, classes), name="ViT-B16")

    def convnext(size, dims, depths, classes, version):
        inputs = K.Input(shape=(size, size, 3))
        x = scaled(inputs)
        x = K.Conv2D(dims[0], 4, strides=4, padding="same", name="root_conv2d")(x)
        x = K.LayerNormalization(name="root_norm")(x)
        for stage, (dim, depth) in enumerate(zip(dims, depths)):
            if stage > 0:
                x = K.LayerNormalization(name=f"block{stage}_down_norm")(x)
                x = K.Conv2D(dim, 2, strides=2, padding="same",
                             name=f"block{stage}_down_conv2d")(x)
            for i in range(depth):
                prefix = f"block{stage}_cell{i}"
                y = K.ZeroPadding2D(padding=(3, 3))(x)
                y = K.DepthwiseConv2D(7, padding="valid", name=f"{prefix}_conv2d_01")(y)
                y = K.LayerNormalization(name=f"{prefix}_norm_01")(y)
                y = K.Conv2D(4 * dim, 1, padding="same", name=f"{prefix}_conv2d_02")(y)
                y = K.Activation("gelu", name=f"{prefix}_act_02")(y)
                if version == 2:
                    y = ResponseNorm(name=f"{prefix}_grn")(y)
                y = K.Conv2D(dim, 1, padding="same", name=f"{prefix}_conv2d_03")(y)
                if version == 1:
                    y = Scale(dim)(y)
                x = K.Add()([y, x])
        x = K.GlobalAveragePooling2D(name="predictions_globalavgpooling")(x)
        x = K.LayerNormalization(name="predictions_norm")(x)
        return keras.Model(inputs, head(x, classes), name=f"ConvNextBV{version}")

    def to_windows(x, window):
        b, h, w, c = (tf.shape(x)[i] for i in range(4))
        x = tf.reshape(x, (b, h // window, window, w // window, window, c))
        return tf.reshape(tf.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, window, window, c))

    def from_windows(x, window, h, w):
        b = tf.shape(x)[0] // (h * w // (window * window))
        x = tf.reshape(x, (b, h // window, w // window, window, window, -1))
        return tf.reshape(tf.transpose(x, (0, 1, 3, 2, 4, 5)), (b, h, w, -1))

    class WindowAttention(K.Layer):
        def __init__(self, dim, window, heads, **kwargs):
            super().__init__(**kwargs)
            self.dim, self.window, self.heads = dim, window, heads
            self.cpb_mlp = keras.Sequential([
                K.Dense(512, name="cpb_mlp/dense_0"),
                K.Activation("relu", name="cpb_mlp/relu"),
                K.Dense(heads, use_bias=False, name="cpb_mlp/dense_1"),
            ])
            self.qkv = K.Dense(3 * dim, use_bias=False, name="qkv")
            self.proj = K.Dense(dim, name="proj")
            steps = np.arange(-(window - 1), window, dtype=np.float32)
            table = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1)[None]
            table = table / (window - 1) * 8
            table = np.sign(table) * np.log2(np.abs(table) + 1) / np.log2(8)
            self.table = tf.constant(table.astype(np.float32))
            coords = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij"))
            flat = coords.reshape(2, -1)
            delta = flat[:, :, None] - flat[:, None, :] + window - 1
            self.index = tf.constant((delta[0] * (2 * window - 1) + delta[1]).astype(np.int32))

        def build(self, shape):
            self.logit_scale = self.add_weight(name="logit_scale", shape=(self.heads, 1, 1))
            self.q_bias = self.add_weight(name="q_bias", shape=(self.dim,))
            self.v_bias = self.add_weight(name="v_bias", shape=(self.dim,))
            self.built = True

        def call(self, x, mask=None):
            b, n, c = (tf.shape(x)[i] for i in range(3))
            qkv = self.qkv(x)
            qkv = qkv + tf.concat((self.q_bias, tf.zeros_like(self.q_bias), self.v_bias), axis=0)
            qkv = tf.transpose(tf.reshape(qkv, (b, n, 3, self.heads, -1)), (2, 0, 3, 1, 4))
            q, k, v = qkv[0], qkv[1], qkv[2]
            attn = tf.math.l2_normalize(q, axis=-1) @ tf.transpose(
                tf.math.l2_normalize(k, axis=-1), (0, 1, 3, 2)
            )
            attn = attn * tf.exp(tf.minimum(self.logit_scale, math.log(100.0)))
            bias = self.cpb_mlp(self.table)
            bias = tf.gather(tf.reshape(bias, (-1, self.heads)), tf.reshape(self.index, (-1,)))
            bias = tf.reshape(bias, (self.window**2, self.window**2, -1))
            bias = 16 * tf.sigmoid(tf.transpose(bias, (2, 0, 1)))
            attn = attn + tf.expand_dims(bias, 0)
            if mask is not None:
                count = tf.shape(mask)[0]
                mask = tf.expand_dims(tf.expand_dims(mask, 1), 0)
                attn = tf.reshape(attn, (b // count, count, self.heads, n, n)) + mask
                attn = tf.reshape(attn, (-1, self.heads, n, n))
            attn = tf.nn.softmax(attn)
            x = tf.reshape(tf.transpose(attn @ v, (0, 2, 1, 3)), (b, n, c))
            return self.proj(x)

    class Mlp(K.Layer):
        def __init__(self, hidden, dim, **kwargs):
            super().__init__(**kwargs)
            self.fc1 = K.Dense(hidden, name="dense_0")
            self.act = K.Activation("gelu")
            self.fc2 = K.Dense(dim, name="dense_1")

        def call(self, x):
            return self.fc2(self.act(self.fc1(x)))

    class SwinBlock(K.Layer):
        def __init__(self, dim, side, heads, window, shift, **kwargs):
            super().__init__(**kwargs)
            if side <= window:
                window, shift = side, 0
            self.side, self.window, self.shift = side, window, shift
            self.norm1 = K.LayerNormalization(epsilon=1e-5, name="norm1")
            self.attn = WindowAttention(dim, window, heads, name="attn")
            self.norm2 = K.LayerNormalization(epsilon=1e-5, name="norm2")
            self.mlp = Mlp(4 * dim, dim, name="mlp")
            self.mask = None
            if shift:
                part = np.searchsorted([side - window, side - shift], np.arange(side), "right")
                regions = (part[:, None] * 3 + part[None, :]).astype(np.float32)
                regions = regions.reshape(side // window, window, side // window, window)
                regions = regions.transpose(0, 2, 1, 3).reshape(-1, window * window)
                differ = regions[:, None, :] != regions[:, :, None]
                self.mask = tf.constant(np.where(differ, -100.0, 0.0).astype(np.float32))

        def call(self, x):
            shape = tf.shape(x)
            b, c = shape[0], shape[2]
            shortcut = x
            x = tf.reshape(x, (b, self.side, self.side, c))
            if self.shift:
                x = tf.roll(x, shift=(-self.shift, -self.shift), axis=(1, 2))
            x = tf.reshape(to_windows(x, self.window), (-1, self.window**2, c))
            x = self.attn(x, mask=self.mask)
            x = tf.reshape(x, (-1, self.window, self.window, c))
            x = from_windows(x, self.window, self.side, self.side)
            if self.shift:
                x = tf.roll(x, shift=(self.shift, self.shift), axis=(1, 2))
            x = tf.reshape(x, (b, self.side * self.side, c))
            x = shortcut + self.norm1(x)
            return x + self.norm2(self.mlp(x))

    class Merging(K.Layer):
        def __init__(self, side, dim, **kwargs):
            super().__init__(**kwargs)
            self.side, self.dim = side, dim
            self.reduction = K.Dense(2 * dim, use_bias=False, name="reduction")
            self.norm = K.LayerNormalization(epsilon=1e-5, name="norm")

        def call(self, x):
            shape = tf.shape(x)
            b, c = shape[0], shape[2]
            x = tf.reshape(x, (b, self.side, self.side, c))
            parts = [x[:, i::2, j::2, :] for j in (0, 1) for i in (0, 1)]
            x = tf.reshape(tf.concat(parts, axis=-1), (b, (self.side // 2) ** 2, 4 * c))
            return self.norm(self.reduction(x))

    def swinv2(size, dim, depths, heads, window, classes, final_epsilon=1e-5):
        inputs = K.Input(shape=(size, size, 3))
        x = scaled(inputs)
        x = K.Conv2D(dim, 4, strides=4)(x)
        x = K.Reshape((-1, dim))(x)
        x = K.LayerNormalization(epsilon=1e-5)(x)
        side = size // 4
        for stage, depth in enumerate(depths):
            name = f"basic_layer_{stage}"
            for i in range(depth):
                x = SwinBlock(dim, side, heads[stage], window, window // 2 if i % 2 else 0,
                              name=f"{name}/swin_transformer_block_{i}")(x)
            if stage + 1 < len(depths):
                x = Merging(side, dim, name=f"{name}/patch_merging")(x)
                side, dim = side // 2, dim * 2
        x = K.LayerNormalization(name="predictions_norm", epsilon=final_epsilon)(x)
        x = K.GlobalAveragePooling1D(name="predictions_globalavgpooling")(x)
        return keras.Model(inputs, head(x, classes), name="SwinV2")

    def moat(size, classes):
        """Only enough of a MOAT to be refused: inverted bottlenecks with batch norms and an
        attention block with a position bias."""
        inputs = K.Input(shape=(size, size, 3))
        x = scaled(inputs)
        x = K.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem/conv_0")(x)
        x = K.BatchNormalization(name="stem/norm_0")(x)
        x = K.Activation("gelu")(x)
        for i in range(2):
            y = K.BatchNormalization(name=f"block_00_0{i}/pre_norm")(x)
            y = K.Conv2D(32, 1, padding="same", name=f"block_00_0{i}/expand_conv")(y)
            y = K.Activation("gelu")(y)
            y = K.DepthwiseConv2D(3, padding="same", name=f"block_00_0{i}/depthwise_conv")(y)
            y = K.Activation("gelu")(y)
            y = K.Conv2D(8, 1, padding="same", name=f"block_00_0{i}/shrink_conv")(y)
            x = K.Add()([x, y])
        x = K.GlobalAveragePooling2D(name="predictions_globalavgpooling")(x)
        x = K.LayerNormalization(name="predictions_norm")(x)
        return keras.Model(inputs, head(x, classes), name="MoAt2")

    small = {
        "keras-vit": (32, lambda: vit(32, 8, 16, 1, 2, 64, CLASSES), True, False),
        "keras-vit-batch1": (32, lambda: vit(32, 8, 16, 2, 2, 64, CLASSES), False, True),
        "keras-convnext": (64, lambda: convnext(64, (4, 8, 8, 12), (1, 1, 1, 1), CLASSES, 1),
                           False, True),
        "keras-convnextv2": (64, lambda: convnext(64, (4, 8, 8, 12), (1, 1, 1, 1), CLASSES, 2),
                             True, False),
        "keras-swinv2-batch1": (48, lambda: swinv2(48, 8, (2, 1), (2, 4), 6, CLASSES),
                                False, True),
        # Windows of 4 on maps of 8, 4 and 2: shifted, whole, and cut to the map. The last norm as
        # the first networks of the kind had it.
        "keras-swinv2": (32, lambda: swinv2(32, 8, (2, 1, 1), (2, 4, 4), 4, CLASSES, 1e-3),
                         True, False),
        "keras-moat": (32, lambda: moat(32, CLASSES), True, False),
    }
    full = {
        "keras-vit": (448, lambda: vit(448, 16, 768, 12, 12, 3072, 9083), False, True),
        "keras-convnextv2": (448, lambda: convnext(448, (128, 256, 512, 1024), (3, 3, 27, 3),
                                                   9083, 2), False, True),
        "keras-swinv2": (448, lambda: swinv2(448, 128, (2, 2, 18, 2), (4, 8, 16, 32), 14, 9083),
                         False, True),
    }
    return small, full


def copy_constants(source, target):
    """Copies of the computation only the tables, as they lie in the file: nothing else is read of it,
    and the rest is megabytes of the same layers over and over."""
    from tensorflow.core.protobuf import saved_model_pb2

    def tables(nodes):
        # Shapes and permutations have one axis.
        return [
            node for node in nodes
            if node.op == "Const" and len(node.attr["value"].tensor.tensor_shape.dim) >= 2
        ]

    full = saved_model_pb2.SavedModel.FromString(source.read_bytes())
    kept = saved_model_pb2.SavedModel(saved_model_schema_version=full.saved_model_schema_version)
    for graph in full.meta_graphs:
        to = kept.meta_graphs.add()
        to.meta_info_def.tags.extend(graph.meta_info_def.tags)
        to.graph_def.versions.CopyFrom(graph.graph_def.versions)
        to.graph_def.node.extend(tables(graph.graph_def.node))
        # A layer's function is there for training and use, called and saved: the first will do.
        seen = set()
        for function in graph.graph_def.library.function:
            found = tables(function.node_def)
            content = [node.attr["value"].SerializeToString() for node in found]
            if not seen.issuperset(content):
                copy = to.graph_def.library.function.add()
                copy.signature.name = function.signature.name
                copy.node_def.extend(found)
                seen.update(content)
    target.write_bytes(kept.SerializeToString(deterministic=True))
    print(f"saved_model.pb: {len(source.read_bytes()) / 1000:.0f} kB, of which "
          f"{target.stat().st_size / 1000:.0f} kB kept")


def keras_cases(names, out, full_size):
    import onnx
    import tensorflow as tf
    import tf2onnx

    small, full = keras_models()
    for name, (size, make, saved_too, fixed) in (full if full_size else small).items():
        if names and name not in names:
            continue
        tf.keras.backend.clear_session()
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        seed = zlib.crc32(name.encode())
        model = make()
        perturb(model, seed)
        batch = 1 if fixed else None
        spec = (tf.TensorSpec((batch, size, size, 3), tf.float32, name="input_1"),)
        proto, _ = tf2onnx.convert.from_keras(model, input_signature=spec, opset=13)
        onnx.save(proto, folder / "model.onnx")
        finish(folder, size, model.output_shape[-1], seed)
        if saved_too and name in ("keras-vit", "keras-convnextv2", "keras-swinv2"):
            with tempfile.TemporaryDirectory() as tmp:
                model.save(tmp, include_optimizer=False, save_format="tf")
                shutil.copytree(Path(tmp) / "variables", folder / "variables")
                shutil.copy(Path(tmp) / "keras_metadata.pb", folder)
                if "swin" in name:
                    copy_constants(Path(tmp) / "saved_model.pb", folder / "saved_model.pb")


# --------------------------------------------------------------------------- timm


def torch_cases(names, out, full_size):
    import onnx
    import timm
    import torch

    class Wrapped(torch.nn.Module):
        """NHWC BGR 0..255 in, probabilities out."""

        def __init__(self, core_model):
            super().__init__()
            self.core_model = core_model

        def forward(self, x):
            x = x.permute(0, 3, 1, 2) / 127.5 - 1.0
            return torch.sigmoid(self.core_model(x))

    n = CLASSES
    vit = dict(patch_size=8, embed_dim=16, depth=2, num_heads=2, class_token=False,
               fc_norm=False, global_pool="avg", img_size=32, act_layer="gelu_tanh")
    swin = dict(img_size=64, patch_size=4, window_size=4, embed_dim=8, depths=(1, 2),
                num_heads=(2, 4), act_layer="gelu_tanh")
    conv = dict(depths=(1, 1, 1, 1), dims=(4, 8, 8, 12))
    eva = dict(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2,
               ref_feat_shape=(4, 4))
    small = {
        "timm-vit": ("vit_base_patch16_224", vit, 32, False),
        "timm-vit-dynamo": ("vit_base_patch16_224", vit, 32, True),
        "timm-swinv2": ("swinv2_base_window8_256", swin, 64, False),
        "timm-convnext": ("convnext_base", {**conv, "act_layer": "gelu_tanh"}, 64, False),
        "timm-convnextv2": ("convnextv2_base", conv, 64, False),
        "timm-eva02": ("eva02_large_patch14_448", eva, 32, False),
    }
    full = {
        "timm-vit": ("vit_base_patch16_224", dict(
            act_layer="gelu_tanh", class_token=False, fc_norm=False, global_pool="avg",
            img_size=448), 448, False),
        "timm-swinv2": ("swinv2_base_window8_256", dict(
            act_layer="gelu_tanh", img_size=448, window_size=14), 448, False),
        "timm-eva02": ("eva02_large_patch14_448", dict(
            img_size=448, ref_feat_shape=(32, 32)), 448, False),
    }
    for name, (architecture, arguments, size, dynamo) in (full if full_size else small).items():
        if names and name not in names:
            continue
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        seed = zlib.crc32(name.encode())
        generator = torch.Generator().manual_seed(seed)
        classes = 10861 if full_size else n
        model = timm.create_model(architecture, num_classes=classes, **arguments).eval()
        with torch.no_grad():
            for key, value in model.named_parameters():
                noise = torch.randn(value.shape, generator=generator)
                if key.endswith("logit_scale"):
                    value.copy_(1.5 + 3.5 * torch.rand(value.shape, generator=generator))
                elif key.endswith("grn.weight") or key.endswith("gamma") or (
                    "norm" in key and key.endswith("weight")
                ) or key.endswith("stem.1.weight") or key.endswith("downsample.0.weight"):
                    value.copy_(1.0 + 0.25 * noise)
                elif value.ndim >= 2 and "pos_embed" not in key and "token" not in key:
                    fan_in = value[0].numel()
                    value.copy_(noise * (1.2 / math.sqrt(fan_in)))
                else:
                    value.copy_(0.3 * noise)
        path = folder / "model.onnx"
        sample = torch.zeros(1, size, size, 3)
        arguments = dict(input_names=["input"], output_names=["output"])
        if dynamo:
            batch = torch.export.Dim("batch")
            torch.onnx.export(Wrapped(model), (torch.zeros(2, size, size, 3),), str(path),
                              dynamo=True, external_data=False, opset_version=18,
                              dynamic_shapes={"x": {0: batch}}, **arguments)
        else:
            axes = {"input": {0: "batch"}, "output": {0: "batch"}}
            torch.onnx.export(Wrapped(model), sample, str(path), dynamo=False, opset_version=17,
                              dynamic_axes=axes, **arguments)
        if not full_size:
            # The newer exporter keeps a stack trace with each node.
            proto = onnx.load(path)
            for node in proto.graph.node:
                del node.metadata_props[:]
            onnx.save(proto, path)
        finish(folder, size, classes, seed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=["keras", "torch"])
    parser.add_argument("case", nargs="*")
    parser.add_argument("--out", type=Path, default=HERE / "onnx")
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    make = keras_cases if arguments.kind == "keras" else torch_cases
    make(arguments.case, arguments.out, arguments.full)


if __name__ == "__main__":
    main()
