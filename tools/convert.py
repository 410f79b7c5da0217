"""Converts a Hugging Face folder (config.json, *.safetensors, its tokenizer) to GGUF; run it as `tools/convert`."""

import argparse
import json
import math
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

try:
    import gguf
    import numpy as np
except ImportError:
    gguf = np = None  # help and refusals work without

TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of tokens


class ConvertError(Exception):
    """Bad input; the message names the file, key or tensor and what is supported."""


def read_text(path):
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConvertError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ConvertError(f"{path}: not UTF-8") from None


def read_json(path):
    try:
        value = json.loads(read_text(path))
    except ValueError as error:
        raise ConvertError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConvertError(f"{path}: not a JSON object")
    return value


def read_json_if(path):
    return read_json(path) if path.is_file() else {}


# --- Tensors ---

class Checkpoint:
    """The tensors of all safetensors files of a folder, by name, read on demand."""
    DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}

    def __init__(self, folder):
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise ConvertError(f"{folder}: no *.safetensors file")
        self.places = {}
        for path in files:
            places = self.header(path)
            for name in places.keys() & self.places.keys():
                raise ConvertError(f"{path}: tensor '{name}' is in {self.places[name][0].name} as well")
            self.places.update(places)

    def header(self, path):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size < path.stat().st_size:
                raise ConvertError(f"{path}: not a safetensors file")
            try:
                entries = json.loads(file.read(size))
            except ValueError:
                entries = None
            if not isinstance(entries, dict):
                raise ConvertError(f"{path}: not a safetensors file: its header is no JSON object")
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
                raise ConvertError(f"{path}: not a safetensors file: tensor '{name}' is not described")
        return {name: (path, 8 + size, entry) for name, entry in entries.items()}

    def read(self, name):
        path, data, entry = self.places[name]
        if entry["dtype"] not in self.DTYPES:
            raise ConvertError(f"{path}: tensor '{name}' has type {entry['dtype']}; supported: {', '.join(self.DTYPES)}")
        begin, end = entry["data_offsets"]
        with path.open("rb") as file:
            file.seek(data + begin)
            raw = file.read(end - begin)
        dtype = np.dtype(self.DTYPES[entry["dtype"]])
        if len(raw) != math.prod(entry["shape"]) * dtype.itemsize:
            raise ConvertError(f"{path}: tensor '{name}' is cut off")
        raw = np.frombuffer(raw, dtype=dtype)
        if entry["dtype"] == "BF16":
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32).reshape(entry["shape"])


def type_named(name):
    return gguf.GGMLQuantizationType[name.upper()]


def interleave(rows, heads):
    """Rows of halves (i, i + pairs), as Hugging Face rotates, to pairs (2i, 2i + 1), as GGUF has them for llama."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def ungroup_heads(rows, heads):
    """Rows of (q, k, v) per head to all of q, all of k, all of v."""
    return rows.reshape(heads, 3, -1, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


# --- Architectures ---

LLAMA_LIKE = {
    r"model\.embed_tokens\.weight": "token_embd.weight",
    r"model\.norm\.weight": "output_norm.weight",
    r"lm_head\.weight": "output.weight",
    r"model\.layers\.(\d+)\.input_layernorm\.weight": "blk.{}.attn_norm.weight",
    r"model\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)": "blk.{}.attn_{}.{}",
    r"model\.layers\.(\d+)\.self_attn\.qkv_proj\.weight": "blk.{}.attn_qkv.weight",
    r"model\.layers\.(\d+)\.self_attn\.([qk])_norm\.weight": "blk.{}.attn_{}_norm.weight",
    r"model\.layers\.(\d+)\.self_attn\.o_proj\.(weight|bias)": "blk.{}.attn_output.{}",
    r"model\.layers\.(\d+)\.post_attention_layernorm\.weight": "blk.{}.ffn_norm.weight",
    r"model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight": "blk.{}.ffn_{}.weight",
    r"model\.layers\.(\d+)\.mlp\.gate_up_proj\.weight": "blk.{}.ffn_up.weight",
}
GEMMA3 = {
    **LLAMA_LIKE,
    r"model\.layers\.(\d+)\.post_attention_layernorm\.weight": "blk.{}.post_attention_norm.weight",
    r"model\.layers\.(\d+)\.pre_feedforward_layernorm\.weight": "blk.{}.ffn_norm.weight",
    r"model\.layers\.(\d+)\.post_feedforward_layernorm\.weight": "blk.{}.post_ffw_norm.weight",
}
GPT2 = {
    r"(?:transformer\.)?wte\.weight": "token_embd.weight",
    r"(?:transformer\.)?wpe\.weight": "position_embd.weight",
    r"(?:transformer\.)?ln_f\.(weight|bias)": "output_norm.{}",
    r"lm_head\.weight": "output.weight",
    r"(?:transformer\.)?h\.(\d+)\.ln_1\.(weight|bias)": "blk.{}.attn_norm.{}",
    r"(?:transformer\.)?h\.(\d+)\.attn\.c_attn\.(weight|bias)": "blk.{}.attn_qkv.{}",
    r"(?:transformer\.)?h\.(\d+)\.attn\.c_proj\.(weight|bias)": "blk.{}.attn_output.{}",
    r"(?:transformer\.)?h\.(\d+)\.ln_2\.(weight|bias)": "blk.{}.ffn_norm.{}",
    r"(?:transformer\.)?h\.(\d+)\.mlp\.c_fc\.(weight|bias)": "blk.{}.ffn_up.{}",
    r"(?:transformer\.)?h\.(\d+)\.mlp\.c_proj\.(weight|bias)": "blk.{}.ffn_down.{}",
    r"(?:transformer\.)?h\.\d+\.attn\.(?:masked_)?bias": None,  # the causal mask
}
GPTNEOX = {
    r"gpt_neox\.embed_in\.weight": "token_embd.weight",
    r"gpt_neox\.final_layer_norm\.(weight|bias)": "output_norm.{}",
    r"(?:embed_out|lm_head)\.weight": "output.weight",
    r"gpt_neox\.layers\.(\d+)\.input_layernorm\.(weight|bias)": "blk.{}.attn_norm.{}",
    r"gpt_neox\.layers\.(\d+)\.attention\.query_key_value\.(weight|bias)": "blk.{}.attn_qkv.{}",
    r"gpt_neox\.layers\.(\d+)\.attention\.dense\.(weight|bias)": "blk.{}.attn_output.{}",
    r"gpt_neox\.layers\.(\d+)\.post_attention_layernorm\.(weight|bias)": "blk.{}.ffn_norm.{}",
    r"gpt_neox\.layers\.(\d+)\.mlp\.dense_h_to_4h\.(weight|bias)": "blk.{}.ffn_up.{}",
    r"gpt_neox\.layers\.(\d+)\.mlp\.dense_4h_to_h\.(weight|bias)": "blk.{}.ffn_down.{}",
    r"gpt_neox\.layers\.\d+\.attention\.(?:bias|masked_bias|rotary_emb\.inv_freq)": None,
}
OPT = {
    r"(?:model\.)?decoder\.embed_tokens\.weight": "token_embd.weight",
    r"(?:model\.)?decoder\.embed_positions\.weight": "position_embd.weight",
    r"(?:model\.)?decoder\.project_(in|out)\.weight": "project_{}.weight",
    r"(?:model\.)?decoder\.final_layer_norm\.(weight|bias)": "output_norm.{}",
    r"lm_head\.weight": "output.weight",
    r"(?:model\.)?decoder\.layers\.(\d+)\.self_attn_layer_norm\.(weight|bias)": "blk.{}.attn_norm.{}",
    r"(?:model\.)?decoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)": "blk.{}.attn_{}.{}",
    r"(?:model\.)?decoder\.layers\.(\d+)\.self_attn\.out_proj\.(weight|bias)": "blk.{}.attn_output.{}",
    r"(?:model\.)?decoder\.layers\.(\d+)\.final_layer_norm\.(weight|bias)": "blk.{}.ffn_norm.{}",
    r"(?:model\.)?decoder\.layers\.(\d+)\.fc1\.(weight|bias)": "blk.{}.ffn_up.{}",
    r"(?:model\.)?decoder\.layers\.(\d+)\.fc2\.(weight|bias)": "blk.{}.ffn_down.{}",
}


@dataclass
class Family:
    """How one `model_type` is written: names of tensors, and values of its config that the engine takes for granted."""
    architecture: str
    tensors: dict
    wanted: dict = field(default_factory=dict)  # config key: the values that may be there; the first one if it is not
    layer_norm: bool = False


SILU = {"hidden_act": ("silu",)}
FAMILIES = {
    "llama": Family("llama", LLAMA_LIKE, SILU),
    "mistral": Family("llama", LLAMA_LIKE, SILU),
    "qwen2": Family("qwen2", LLAMA_LIKE, {**SILU, "use_sliding_window": (False,)}),
    "qwen3": Family("qwen3", LLAMA_LIKE, {**SILU, "use_sliding_window": (False,)}),
    "gemma3_text": Family("gemma3", GEMMA3, {"hidden_activation": ("gelu_pytorch_tanh",),
                                             "attn_logit_softcapping": (None,),
                                             "use_bidirectional_attention": (False, None)}),
    "phi3": Family("phi3", LLAMA_LIKE, SILU),
    "gpt2": Family("gpt2", GPT2, {"activation_function": ("gelu_new", "gelu_pytorch_tanh"),
                                  "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,),
                                  "add_cross_attention": (False,)}, layer_norm=True),
    "gpt_neox": Family("gptneox", GPTNEOX, {"hidden_act": ("gelu",), "attention_bias": (True,)}, layer_norm=True),
    "opt": Family("opt", OPT, {"activation_function": ("relu",), "enable_bias": (True,),
                               "layer_norm_elementwise_affine": (True,), "_remove_final_layer_norm": (False,)},
                  layer_norm=True),
}


def find_family(config):
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ConvertError(f"config.json: model_type '{kind}' is not supported; supported: {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    for key, values in family.wanted.items():
        if config.get(key, values[0]) not in values:
            raise ConvertError(f"config.json: {key} is {config[key]!r}; supported: "
                               + ", ".join(repr(value) for value in values))
    return family


class Sizes:
    """What config.json says, under one name for all families."""

    def __init__(self, config):
        def first(*keys, otherwise=None):
            for key in keys:
                if config.get(key) is not None:
                    return config[key]
            if otherwise is None:
                raise ConvertError(f"config.json: no {keys[0]}")
            return otherwise
        self.layers = first("num_hidden_layers", "n_layer")
        self.embedding = first("hidden_size", "n_embd")
        self.heads = first("num_attention_heads", "n_head")
        self.kv_heads = first("num_key_value_heads", otherwise=self.heads)
        self.head_dim = first("head_dim", otherwise=self.embedding // self.heads)
        self.feed_forward = first("intermediate_size", "ffn_dim", "n_inner", otherwise=4 * self.embedding)
        self.context = first("max_position_embeddings", "n_positions")
        self.epsilon = first("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", otherwise=1e-5)
        self.vocabulary = first("vocab_size")


class Rope(dict):
    def __missing__(self, key):
        raise ConvertError(f"config.json: its RoPE scaling '{self['kind']}' has no {key}")


def rope_of(config):
    """Base, the share of a head that is rotated, and the scaling, wherever this version of the config keeps them."""
    rope = Rope(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if "full_attention" in rope:
        rope = Rope(rope["full_attention"])
    rope.setdefault("rope_theta", config.get("rope_theta", config.get("rotary_emb_base", 10000.0)))
    rope.setdefault("partial_rotary_factor", config.get("partial_rotary_factor", config.get("rotary_pct", 1.0)))
    rope["kind"] = rope.get("rope_type", rope.get("type", "default"))
    return rope


def llama3_factors(rope, dims):
    """What divides the angle of each pair: 1 for fast pairs, the factor for slow ones, a blend between."""
    pairs = np.arange(0, dims, 2, dtype=np.float64)
    wavelength = 2 * math.pi * rope["rope_theta"] ** (pairs / dims)
    turns = rope["original_max_position_embeddings"] / wavelength
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - keep) / rope["factor"] + keep)).astype(np.float32)


class Converter:
    def __init__(self, folder, output, type_name):
        self.config = read_json(folder / "config.json")
        self.family = find_family(self.config)
        self.sizes = Sizes(self.config)
        self.checkpoint = Checkpoint(folder)
        self.folder, self.type = folder, type_named(type_name)
        self.writer = gguf.GGUFWriter(output, self.family.architecture)
        self.shapes = {}  # of the tensors written so far

    def run(self):
        self.write_keys()
        if self.family.architecture not in ("gpt2", "opt"):
            self.write_rope()
        self.write_windows()
        write_tokenizer(self.writer, self.folder, self.config, self.sizes.vocabulary)
        for name in sorted(self.checkpoint.places):
            self.write_tensor(name)
        self.check_tensors()
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()

    def key(self, name):
        return f"{self.family.architecture}.{name}"

    def write_keys(self):
        sizes, writer = self.sizes, self.writer
        writer.add_name(self.config.get("_name_or_path") or self.folder.resolve().name)
        writer.add_block_count(sizes.layers)
        writer.add_context_length(sizes.context)
        writer.add_embedding_length(sizes.embedding)
        writer.add_feed_forward_length(sizes.feed_forward)
        writer.add_head_count(sizes.heads)
        writer.add_head_count_kv(sizes.kv_heads)
        writer.add_key_length(sizes.head_dim)
        writer.add_value_length(sizes.head_dim)
        writer.add_vocab_size(sizes.vocabulary)
        if self.family.layer_norm:
            writer.add_layer_norm_eps(sizes.epsilon)
        else:
            writer.add_layer_norm_rms_eps(sizes.epsilon)
        if self.family.architecture == "gptneox":
            writer.add_parallel_residual(self.config.get("use_parallel_residual", True))
        if self.family.architecture == "opt":
            writer.add_bool(self.key("layer_norm_before"), self.config.get("do_layer_norm_before", True))
        if self.config.get("final_logit_softcapping"):
            writer.add_final_logit_softcapping(self.config["final_logit_softcapping"])
        scale = self.config.get("query_pre_attn_scalar", sizes.head_dim)
        if scale != (sizes.embedding // sizes.heads if sizes.layers == 62 else sizes.head_dim):
            raise ConvertError(f"config.json: query_pre_attn_scalar {scale} is not the size of a head: not supported")

    def write_rope(self):
        rope, writer = rope_of(self.config), self.writer
        dims = int(self.sizes.head_dim * rope["partial_rotary_factor"])
        writer.add_rope_dimension_count(dims)
        writer.add_rope_freq_base(float(rope["rope_theta"]))
        if rope["kind"] == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(float(rope["factor"]))
        elif rope["kind"] == "yarn":
            self.write_yarn(rope)
        elif rope["kind"] in ("longrope", "su"):
            self.write_longrope(rope, dims)
        elif rope["kind"] == "llama3":
            writer.add_tensor("rope_freqs.weight", llama3_factors(rope, dims))
        elif rope["kind"] != "default":
            raise ConvertError(f"config.json: RoPE scaling '{rope['kind']}' is not supported; "
                               "supported: default, linear, yarn, longrope, llama3")

    def write_yarn(self, rope):
        for key, usual in (("beta_fast", 32), ("beta_slow", 1), ("attention_factor", None), ("mscale", None),
                           ("mscale_all_dim", None), ("truncate", True)):
            if rope.get(key, usual) != usual:
                raise ConvertError(f"config.json: {key} of yarn is {rope[key]!r}; supported: {usual!r}")
        self.writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        self.writer.add_rope_scaling_factor(float(rope["factor"]))
        self.writer.add_rope_scaling_orig_ctx_len(
            int(rope.get("original_max_position_embeddings") or self.sizes.context))

    def write_longrope(self, rope, dims):
        original = int(rope.get("original_max_position_embeddings")
                       or self.config.get("original_max_position_embeddings") or self.sizes.context)
        factor = rope.get("factor") or self.sizes.context / original
        usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
        self.writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        self.writer.add_rope_scaling_orig_ctx_len(original)
        self.writer.add_rope_scaling_attn_factors(float(rope.get("attention_factor") or usual))
        for length in ("short", "long"):
            factors = np.array(rope.get(f"{length}_factor", []), dtype=np.float32)
            if factors.shape != (dims // 2,):
                raise ConvertError(f"config.json: {length}_factor of longrope is no list of {dims // 2} numbers")
            self.writer.add_tensor(f"rope_factors_{length}.weight", factors)

    def write_windows(self):
        """Gemma 3: all layers but every n-th; Mistral and Phi-3: all layers or none."""
        window, architecture = self.config.get("sliding_window"), self.family.architecture
        if not window or architecture not in ("gemma3", "llama", "phi3"):
            return
        self.writer.add_sliding_window(window)
        if architecture == "gemma3":
            self.writer.add_uint32(self.key("attention.sliding_window_pattern"), self.window_period())
            local = (self.config.get("rope_parameters") or {}).get("sliding_attention", {})
            base = local.get("rope_theta", self.config.get("rope_local_base_freq", 10000.0))
            self.writer.add_float32(self.key("rope.freq_base_swa"), float(base))

    def window_period(self):
        kinds = self.config.get("layer_types")
        if not kinds:
            return self.config.get("sliding_window_pattern", 6)
        full = [layer for layer, kind in enumerate(kinds) if kind == "full_attention"]
        period = full[0] + 1 if full else len(kinds) + 1
        if full != list(range(period - 1, len(kinds), period)):
            raise ConvertError("config.json: layer_types is no pattern of every n-th layer: not supported")
        return period

    def gguf_name(self, name):
        for pattern, target in self.family.tensors.items():
            if match := re.fullmatch(pattern, name):
                return target and target.format(*match.groups())
        raise ConvertError(f"tensor '{name}' is not part of a '{self.config['model_type']}' that is supported")

    def arrange(self, target, data):
        """The order that GGUF has for this family."""
        architecture, sizes = self.family.architecture, self.sizes
        if architecture == "llama" and re.search(r"attn_[qk]\.", target):
            return interleave(data, sizes.heads if "attn_q." in target else sizes.kv_heads)
        if architecture == "gptneox" and "attn_qkv" in target:
            return ungroup_heads(data, sizes.heads)
        if architecture == "gpt2" and data.ndim == 2 and target.startswith("blk."):
            return data.T  # inputs are rows there
        if architecture == "gemma3" and "norm" in target:
            return data + 1  # weights are kept as their difference from 1
        return data

    def type_of(self, target, data):
        if data.ndim == 1 or target.startswith("position_embd"):
            return type_named("f32")
        wanted = self.type
        if wanted == type_named("q4_0") and target in ("token_embd.weight", "output.weight"):
            wanted = type_named("q8_0")  # the most sensitive ones
        return wanted if data.shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0] == 0 else type_named("f16")

    def is_tied(self):
        return self.config.get("tie_word_embeddings", self.family.architecture in ("gemma3", "gpt2", "opt"))

    def write_tensor(self, name):
        target = self.gguf_name(name)
        if target is None or (target == "output.weight" and self.is_tied()):
            return
        data = np.ascontiguousarray(self.arrange(target, self.checkpoint.read(name)))
        kind = self.type_of(target, data)
        self.shapes[target] = data.shape
        self.writer.add_tensor(target, gguf.quants.quantize(data, kind), raw_dtype=kind)

    def check_tensors(self):
        """What a shard that is not there, or a config.json of another model, would leave out unnoticed."""
        sizes = self.sizes
        layers = {layer: set() for layer in range(sizes.layers)}
        for name in self.shapes:
            if match := re.fullmatch(r"blk\.(\d+)\.(.+)", name):
                layers.setdefault(int(match[1]), set()).add(match[2])
        if len(layers) > sizes.layers:
            raise ConvertError(f"{self.folder}: tensors of layer {max(layers)}, config.json says {sizes.layers} layers")
        wanted = {f"blk.{layer}.{name}" for layer in layers for name in set().union(*layers.values())}
        wanted |= {"token_embd.weight"} | (set() if self.is_tied() else {"output.weight"})
        for name in sorted(wanted - self.shapes.keys()):
            why = "tie_word_embeddings is not true" if name == "output.weight" else "is a *.safetensors file missing?"
            raise ConvertError(f"{self.folder}: no tensor for '{name}'; {why}")
        for name in ("token_embd.weight", "output.weight"):
            rows = self.shapes.get(name, (sizes.vocabulary,))[0]
            if rows != sizes.vocabulary:
                raise ConvertError(f"{self.folder}: '{name}' has {rows} rows, config.json says vocab_size {sizes.vocabulary}")


# --- Tokenizers ---

# Patterns of byte-level tokenizers and libllama's names for them.
LLAMA3_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                  r"|\s*[\r\n]+|\s+(?!\S)|\s+")
PATTERNS = {LLAMA3_PATTERN: "llama-bpe", LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}"): "qwen2"}


def pre_tokenizer_name(pre_tokenizer):
    parts = pre_tokenizer.get("pretokenizers", [pre_tokenizer]) if pre_tokenizer else []
    kinds = [part["type"] for part in parts]
    if any(part.get("add_prefix_space") for part in parts):
        raise ConvertError("tokenizer.json: add_prefix_space of its pre_tokenizer is True; supported: False")
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = parts[0].get("pattern", {}).get("Regex")
        if pattern in PATTERNS and parts[0].get("behavior") == "Isolated":
            return PATTERNS[pattern]
    raise ConvertError("tokenizer.json: its pre_tokenizer is none that is supported: "
                       "gpt-2, smollm, " + ", ".join(PATTERNS.values()))


def read_tokenizer(folder):
    """tokenizer.json, or the older pair vocab.json and merges.txt of GPT-2 and OPT in the same form."""
    if (folder / "tokenizer.json").is_file():
        return read_json(folder / "tokenizer.json")
    if not (folder / "vocab.json").is_file():
        if (folder / "tokenizer.model").is_file():
            raise ConvertError(f"{folder}: no tokenizer.json; tokenizer.model alone is not supported, "
                               "AutoTokenizer.from_pretrained(...).save_pretrained(...) writes both")
        return None
    lines = read_text(folder / "merges.txt").splitlines()
    vocabulary, settings = read_json(folder / "vocab.json"), read_json_if(folder / "tokenizer_config.json")
    special = {text_of(value) for value in read_json_if(folder / "special_tokens_map.json").values()}
    special |= {"<s>", "</s>", "<pad>", "<unk>", "<|endoftext|>"}
    return {"model": {"type": "BPE", "vocab": vocabulary,
                      "merges": [line for line in lines if line and not line.startswith("#version")]},
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": settings.get("add_prefix_space", False)},
            "added_tokens": [{"id": id_, "content": text, "special": True}
                             for text, id_ in vocabulary.items() if text in special]}


def text_of(token):
    return token["content"] if isinstance(token, dict) else token


def tokens_of(tokenizer, size, blank):
    """Text and type of every id; `blank` is how the vocabulary writes a space."""
    texts, types = [f"[PAD{i}]" for i in range(size)], [UNUSED] * size
    unknown = tokenizer["model"].get("unk_token")
    for text, id_ in tokenizer["model"]["vocab"].items():
        if id_ < size:
            byte = blank == "▁" and re.fullmatch(r"<0x[0-9A-F]{2}>", text)
            texts[id_], types[id_] = text, BYTE if byte else NORMAL
    for added in tokenizer.get("added_tokens", []):
        if added["id"] < size:
            texts[added["id"]] = added["content"]
            types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if unknown in texts and blank == "▁":
        types[texts.index(unknown)] = UNKNOWN
    return texts, types


def merges_of(tokenizer):
    pairs = tokenizer["model"]["merges"]
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]


NORMALIZERS = {True: ("Prepend", "Replace"), False: ("NFC",)}  # by byte fallback: what libllama does by itself or need not


def check_tokenizer(tokenizer, size):
    """Whatever would give a file that loads, and tokenizes otherwise than the original."""
    model = tokenizer.get("model") or {}
    if model.get("type") != "BPE":
        raise ConvertError(f"tokenizer.json: model '{model.get('type')}' is not supported; supported: BPE")
    vocabulary = model.get("vocab")
    if not vocabulary:
        raise ConvertError("the tokenizer has no vocabulary")
    if not model.get("merges"):
        raise ConvertError("the tokenizer has no merges: it would cut every text into single bytes")
    for pair in merges_of(tokenizer):
        if (whole := pair.replace(" ", "", 1)) not in vocabulary:
            raise ConvertError(f"the merge '{pair}' of the tokenizer makes '{whole}', which its vocabulary does not have")
    added = {token["content"] for token in tokenizer.get("added_tokens", [])}
    for text, id_ in vocabulary.items():
        if id_ >= size and text not in added:
            raise ConvertError(f"token {id_} of the tokenizer is '{text}', config.json says vocab_size {size}")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise ConvertError(f"tokenizer.json: {key} is {model[key]!r}, which is not supported")
    supported = NORMALIZERS[bool(model.get("byte_fallback"))]
    normalizer = tokenizer.get("normalizer") or {"type": "Sequence", "normalizers": []}
    for step in normalizer.get("normalizers", [normalizer]):
        if step["type"] not in supported:
            raise ConvertError(f"tokenizer.json: normalizer '{step['type']}' is not supported; supported: {', '.join(supported)}")


def write_sentencepiece(writer, tokenizer, size):
    """Pieces merge in the order of their scores, which tokenizer.json keeps as the order of its merges."""
    texts, types = tokens_of(tokenizer, size, "▁")
    order = {}
    for pair in merges_of(tokenizer):
        order.setdefault(pair.replace(" ", "", 1), len(order))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_scores([-float(order.get(text, len(order))) for text in texts])
    writer.add_token_types(types)
    steps = json.dumps([tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")])
    writer.add_add_space_prefix('"Prepend"' in steps or '"prepend_scheme": "first"' in steps
                                or '"add_prefix_space": true' in steps)


def write_byte_level(writer, tokenizer, size):
    texts, types = tokens_of(tokenizer, size, "Ġ")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer_name(tokenizer.get("pre_tokenizer")))
    writer.add_token_list(texts)
    writer.add_token_types(types)
    writer.add_token_merges(merges_of(tokenizer))


def begins_with_special(tokenizer):
    """Does its post-processor put a special token in front?"""
    post = tokenizer.get("post_processor") or {}
    for part in post.get("processors", [post]):
        if part.get("type") == "TemplateProcessing" and "SpecialToken" in part["single"][0]:
            return True
    return False


def write_tokenizer(writer, folder, config, size):
    tokenizer = read_tokenizer(folder)
    if tokenizer is None:
        print("no tokenizer in the folder: the file takes and gives token ids only", file=sys.stderr)
        writer.add_tokenizer_model("none")
        return
    check_tokenizer(tokenizer, size)
    settings = read_json_if(folder / "tokenizer_config.json")
    write = write_sentencepiece if tokenizer["model"].get("byte_fallback") else write_byte_level
    write(writer, tokenizer, size)
    ids = {**tokenizer["model"]["vocab"], **{added["content"]: added["id"] for added in tokenizer.get("added_tokens", [])}}
    for role, add in (("bos", writer.add_bos_token_id), ("eos", writer.add_eos_token_id),
                      ("unk", writer.add_unk_token_id), ("pad", writer.add_pad_token_id)):
        named = ids.get(text_of(settings.get(f"{role}_token")))
        configured = config.get(f"{role}_token_id")
        configured = configured[0] if isinstance(configured, list) else configured
        if (id_ := configured if named is None else named) is not None:
            add(id_)
    writer.add_add_bos_token(bool(settings.get("add_bos_token", begins_with_special(tokenizer))))
    writer.add_add_eos_token(bool(settings.get("add_eos_token", False)))
    template = folder / "chat_template.jinja"
    if template.is_file():
        writer.add_chat_template(template.read_text(encoding="utf-8"))
    elif settings.get("chat_template"):
        writer.add_chat_template(settings["chat_template"])


def main():
    parser = argparse.ArgumentParser(
        prog="tools/convert", usage="tools/convert FOLDER -o model.gguf [--type TYPE]",
        description="Converts a Hugging Face folder to GGUF.",
        epilog="example: tools/convert ~/models/opt-125m -o opt-125m.gguf --type q8_0")
    parser.add_argument("folder", type=Path, metavar="FOLDER",
                        help="config.json, *.safetensors, tokenizer.json or vocab.json and merges.txt")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="model.gguf", help="the file to write")
    parser.add_argument("--type", choices=TYPES, default="f16", metavar="TYPE",
                        help=f"of the matrices, one of {', '.join(TYPES)} (default: f16); vectors are f32")
    parser.error = lambda message: parser.exit(2, f"convert: {message}; see tools/convert --help\n")
    arguments = parser.parse_args()
    if gguf is None:
        print("convert: no Python packages gguf and numpy yet, run tools/deps", file=sys.stderr)
        return 1
    part = arguments.output.with_name(arguments.output.name + ".part")
    try:
        Converter(arguments.folder, part, arguments.type).run()
        part.replace(arguments.output)
    except (ConvertError, OSError) as error:
        part.unlink(missing_ok=True)
        print(f"convert: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
