"""Writes a random model in the shape of Llama 2 7B: shaped_model.py FILE.gguf. It says nothing, but it takes its time.

32 layers, 32 heads of 128, Q4_0: 3.8 GB. The file appears under its name when it is complete.
"""

import sys
from pathlib import Path

import gguf
import numpy

LAYERS, HEADS, WIDTH, FEED_FORWARD, VOCABULARY, CONTEXT = 32, 32, 4096, 11008, 32000, 4096
Q4_0 = gguf.GGMLQuantizationType.Q4_0
BLOCK, BLOCK_BYTES = gguf.GGML_QUANT_SIZES[Q4_0]

MATRICES = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH), "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (FEED_FORWARD, WIDTH), "ffn_up": (FEED_FORWARD, WIDTH), "ffn_down": (WIDTH, FEED_FORWARD)}


def random_blocks(random, rows, columns):
    """Codes are uniform in -8..7; the scale gives a product's outputs the size of its inputs."""
    blocks = random.integers(0, 256, (rows, columns // BLOCK, BLOCK_BYTES), numpy.uint8)
    scale = numpy.float16(1 / (4.6 * columns**0.5))
    blocks[:, :, :2] = numpy.frombuffer(scale.tobytes(), numpy.uint8)
    return blocks.reshape(rows, -1)


def add_metadata(writer):
    writer.add_name("random model in the shape of Llama 2 7B")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("none")


def add_tensors(writer):
    random = numpy.random.default_rng(1)

    def matrix(name, shape):
        writer.add_tensor(f"{name}.weight", random_blocks(random, *shape), raw_dtype=Q4_0)

    def norm(name):
        writer.add_tensor(f"{name}.weight", numpy.ones(WIDTH, numpy.float32))

    matrix("token_embd", (VOCABULARY, WIDTH))
    for layer in range(LAYERS):
        norm(f"blk.{layer}.attn_norm")
        norm(f"blk.{layer}.ffn_norm")
        for name, shape in MATRICES.items():
            matrix(f"blk.{layer}.{name}", shape)
    norm("output_norm")
    matrix("output", (VOCABULARY, WIDTH))


def main():
    path = Path(sys.argv[1])
    part = path.with_suffix(".part")
    # Tensors wait in a temporary file, not in memory.
    writer = gguf.GGUFWriter(part, "llama", use_temp_file=True)
    add_metadata(writer)
    add_tensors(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(path)


if __name__ == "__main__":
    main()
