"""Converts a small OPT, written here as Hugging Face keeps it, and runs the program on the result."""

import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONVERT = ROOT / "tools" / "convert"
PYTHON = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "a2sf/venv/bin/python"
PROGRAM = os.environ.get("A2SF_PROGRAM") or str(ROOT / "build/release/apps/a2sf/a2sf")
SKIPPED = 77
WIDTH, WIDE, LAYERS, POSITIONS = 64, 96, 2, 40
# The bytes as GPT-2 writes them: printable ones as they are, the others from U+0100 on.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
LETTERS = {b: chr(b) for b in PRINTABLE} | {b: chr(256 + i) for i, b in enumerate(set(range(256)) - set(PRINTABLE))}
VOCABULARY = ["<s>", "<pad>", "</s>", "<unk>", *(LETTERS[b] for b in range(256)), "he", "ll", "hell", "hello"]
MERGES = "#version: 0.2\nh e\nl l\nhe ll\nhell o\n"
CONFIG = {"model_type": "opt", "vocab_size": len(VOCABULARY), "hidden_size": WIDTH, "ffn_dim": WIDE,
          "num_hidden_layers": LAYERS, "num_attention_heads": 4, "max_position_embeddings": POSITIONS,
          "word_embed_proj_dim": WIDTH, "activation_function": "relu", "do_layer_norm_before": True,
          "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}


def shapes():
    decoder = {"embed_tokens.weight": [len(VOCABULARY), WIDTH], "embed_positions.weight": [POSITIONS + 2, WIDTH],
               "final_layer_norm.weight": [WIDTH], "final_layer_norm.bias": [WIDTH]}
    for layer in range(LAYERS):
        for name, rows, columns in (("self_attn.q_proj", WIDTH, WIDTH), ("self_attn.k_proj", WIDTH, WIDTH),
                                    ("self_attn.v_proj", WIDTH, WIDTH), ("self_attn.out_proj", WIDTH, WIDTH),
                                    ("fc1", WIDE, WIDTH), ("fc2", WIDTH, WIDE)):
            decoder[f"layers.{layer}.{name}.weight"], decoder[f"layers.{layer}.{name}.bias"] = [rows, columns], [rows]
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            decoder[f"layers.{layer}.{name}.weight"] = decoder[f"layers.{layer}.{name}.bias"] = [WIDTH]
    return {f"model.decoder.{name}": shape for name, shape in decoder.items()}


def write_safetensors(path, tensors):
    chance, header, data = random.Random(5), {}, bytearray()
    for name, shape in tensors.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        mean = 1 if "norm.weight" in name else 0
        values = struct.pack(f"<{count}f", *(mean + chance.gauss(0, 0.15) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


class ConvertTest(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.folder, self.output = Path(self.scratch.name, "opt"), Path(self.scratch.name, "opt.gguf")
        self.folder.mkdir()
        self.write_config()
        write_safetensors(self.folder / "model.safetensors", shapes())
        (self.folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(VOCABULARY)}))
        (self.folder / "merges.txt").write_text(MERGES)
        (self.folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True, "bos_token": "</s>"}))

    def tearDown(self):
        self.scratch.cleanup()

    def write_config(self, **changes):
        (self.folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))

    def convert(self, kind="f32"):
        return subprocess.run([CONVERT, self.folder, "-o", self.output, "--type", kind], capture_output=True, text=True,
                              timeout=120, check=False)

    def read(self, *arguments):
        done = subprocess.run([PROGRAM, *map(str, arguments), "--json"], capture_output=True, text=True, timeout=120,
                              check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""), arguments)
        return json.loads(done.stdout)

    def refuse(self, mention):
        done = self.convert()
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assertRegex(done.stderr, r"^convert: [^\n]+\n$")
        self.assertIn(mention, done.stderr)
        self.assertEqual(list(self.output.parent.glob("*.gguf*")), [])

    def test_every_type_runs(self):
        text = Path(self.scratch.name, "text.txt")
        text.write_text("hello world, hello hell " * 8)
        perplexity = {}
        for kind, name in (("f32", "f32"), ("f16", "f16"), ("bf16", "bf16"), ("q8_0", "q8_0"), ("q4_0", "q4_0")):
            done = self.convert(kind)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            facts = self.read("inspect", self.output)
            self.assertEqual((facts["architecture"], facts["trained_context_tokens"]), ("opt", POSITIONS))
            self.assertIn(name, facts["tensor_types"])
            result = self.read("perplexity", "-m", self.output, "-f", text, "--ctx", 32, "--policy", "a2sf", "--budget", 8)
            perplexity[kind] = result["perplexity"]
        for kind, tolerance in (("f16", 0.01), ("bf16", 0.03), ("q8_0", 0.03), ("q4_0", 0.4)):
            self.assertLess(abs(perplexity[kind] / perplexity["f32"] - 1), tolerance, perplexity)

    def test_tokens_of_the_older_files(self):
        self.convert()
        text = Path(self.scratch.name, "text.txt")
        text.write_text("hello\n")
        trace = Path(self.scratch.name, "trace.jsonl")
        subprocess.run([PROGRAM, "trace", "-m", self.output, "-f", text, "-o", trace], check=True, capture_output=True)
        tokens = json.loads(trace.read_text().splitlines()[0])["tokens"]
        self.assertEqual(tokens, [VOCABULARY.index("</s>"), VOCABULARY.index("hello"), VOCABULARY.index(LETTERS[10])])

    def test_bad_input(self):
        for changes, mention in (({"model_type": "mamba"}, "model_type 'mamba' is not supported; supported: llama, "),
                                 ({"activation_function": "gelu"}, "activation_function is 'gelu'; supported: 'relu'"),
                                 ({"enable_bias": False}, "enable_bias is False"),
                                 ({"hidden_size": None}, "no hidden_size")):
            self.write_config(**changes)
            self.refuse(mention)
        self.write_config()
        (self.folder / "config.json").write_text("{")
        self.refuse("config.json: not JSON")
        self.write_config()
        write_safetensors(self.folder / "more.safetensors", {"model.decoder.layers.0.lora.weight": [4]})
        self.refuse("tensor 'model.decoder.layers.0.lora.weight' is not part of a 'opt'")
        (self.folder / "more.safetensors").write_bytes(b"\xff" * 100)
        self.refuse("more.safetensors: not a safetensors file")
        (self.folder / "more.safetensors").unlink()
        whole = (self.folder / "model.safetensors").read_bytes()
        (self.folder / "model.safetensors").write_bytes(whole[:-100])
        self.refuse("is cut off")


if __name__ == "__main__":
    ready = PYTHON.exists() and subprocess.run([PYTHON, "-c", "import gguf"], capture_output=True, check=False).returncode == 0
    if not (ready and os.access(PROGRAM, os.X_OK)):
        print(f"skipped: no gguf package in {PYTHON} (tools/deps), or {PROGRAM} is missing")
        sys.exit(SKIPPED)
    unittest.main()
