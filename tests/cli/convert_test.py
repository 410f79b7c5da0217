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
TOKENS = {token: i for i, token in enumerate(VOCABULARY)}
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
        (self.folder / "vocab.json").write_text(json.dumps(TOKENS))
        (self.folder / "merges.txt").write_text(MERGES)
        (self.folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True, "bos_token": "</s>"}))

    def tearDown(self):
        self.scratch.cleanup()

    def write_config(self, **changes):
        (self.folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))

    def write_tokenizer(self, model=None, **changes):
        tokenizer = {"model": {"type": "BPE", "vocab": TOKENS, "merges": ["h e", "l l", "he ll", "hell o"]} | (model or {}),
                     "pre_tokenizer": {"type": "ByteLevel"}, "added_tokens": []}
        (self.folder / "tokenizer.json").write_text(json.dumps(tokenizer | changes))

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

    def test_help_has_an_example(self):
        shown = subprocess.run([CONVERT, "--help"], capture_output=True, text=True, check=True).stdout
        self.assertIn("example: tools/convert ~/models/opt-125m -o opt-125m.gguf --type q8_0", shown)

    def test_a_tokenizer_that_would_cut_otherwise_than_the_original_is_refused(self):
        self.write_tokenizer()
        self.assertEqual(self.convert().returncode, 0)
        self.output.unlink()
        for changes, mention in (
                ({"model": {"merges": []}}, "the tokenizer has no merges: it would cut every text into single bytes"),
                ({"model": {"merges": None}}, "the tokenizer has no merges"),
                ({"model": {"merges": ["h e", "he y"]}}, "the merge 'he y' of the tokenizer makes 'hey'"),
                ({"model": {"merges": [], "byte_fallback": True}}, "the tokenizer has no merges"),
                ({"model": {"vocab": {}}}, "the tokenizer has no vocabulary"),
                ({"model": {"vocab": {**TOKENS, "hey": 999}}}, "token 999 of the tokenizer is 'hey', config.json says vocab_size"),
                ({"model": {"end_of_word_suffix": "</w>"}}, "end_of_word_suffix is '</w>'"),
                ({"model": {"type": "Unigram"}}, "model 'Unigram' is not supported; supported: BPE"),
                ({"normalizer": {"type": "Lowercase"}}, "normalizer 'Lowercase' is not supported; supported: NFC"),
                ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "add_prefix_space")):
            with self.subTest(mention):
                self.write_tokenizer(**changes)
                self.refuse(mention)
        (self.folder / "tokenizer.json").unlink()
        (self.folder / "merges.txt").write_text("#version: 0.2\n")
        self.refuse("the tokenizer has no merges")
        (self.folder / "merges.txt").unlink()
        self.refuse("merges.txt: no such file")
        (self.folder / "vocab.json").unlink()
        (self.folder / "tokenizer.model").write_text("")
        self.refuse("no tokenizer.json; tokenizer.model alone is not supported")

    def test_an_added_token_beyond_the_embedding_is_left_out(self):
        self.write_tokenizer(added_tokens=[{"id": len(VOCABULARY), "content": "<image>", "special": True}])
        self.assertEqual(self.convert().returncode, 0)
        self.assertEqual(self.read("inspect", self.output)["vocabulary"], len(VOCABULARY))

    def test_missing_tensors_are_refused(self):
        def without(*names):
            write_safetensors(self.folder / "model.safetensors",
                              {name: shape for name, shape in shapes().items() if name not in names})

        last = [name for name in shapes() if f"layers.{LAYERS - 1}." in name]
        for names, mention in ((last, f"no tensor for 'blk.{LAYERS - 1}."), (last[:1], f"no tensor for 'blk.{LAYERS - 1}."),
                               (["model.decoder.embed_tokens.weight"], "no tensor for 'token_embd.weight'")):
            without(*names)
            self.refuse(mention)
        without()
        self.write_config(tie_word_embeddings=False)
        self.refuse("no tensor for 'output.weight'; tie_word_embeddings is not true")
        self.write_config(num_hidden_layers=LAYERS - 1)
        self.refuse(f"tensors of layer {LAYERS - 1}, config.json says {LAYERS - 1} layers")
        self.write_config(vocab_size=len(VOCABULARY) + 1)
        self.refuse(f"'token_embd.weight' has {len(VOCABULARY)} rows, config.json says vocab_size {len(VOCABULARY) + 1}")
        self.write_config()
        write_safetensors(self.folder / "more.safetensors", {"model.decoder.final_layer_norm.bias": [WIDTH]})
        self.refuse("tensor 'model.decoder.final_layer_norm.bias' is in model.safetensors as well")

    def test_bad_input(self):
        for changes, mention in (({"model_type": "mamba"}, "model_type 'mamba' is not supported; supported: llama, "),
                                 ({"activation_function": "gelu"}, "activation_function is 'gelu'; supported: 'relu'"),
                                 ({"enable_bias": False}, "enable_bias is False"),
                                 ({"model_type": "gemma3_text", "use_bidirectional_attention": True},
                                  "use_bidirectional_attention is True; supported: False, None"),
                                 ({"model_type": "llama", "rope_scaling": {"rope_type": "linear"}},
                                  "its RoPE scaling 'linear' has no factor"),
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
