"""Writes a random model in the shape of Llama 2 7B. It says nothing, but it takes its time.

32 layers, 32 heads of 128, Q4_0: 3.8 GB. The file appears under its name when it is complete.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy
import usage

Q4_0 = gguf.GGMLQuantizationType.Q4_0
BLOCK, BLOCK_BYTES = gguf.GGML_QUANT_SIZES[Q4_0]


@dataclass(frozen=True)
class Shape:
    name: str
    layers: int
    heads: int
    width: int
    feed_forward: int
    vocabulary: int
    context: int

    def matrices_of_layer(self):
        square, wide, tall = (self.width, self.width), (self.feed_forward, self.width), (self.width, self.feed_forward)
        return {"attn_q": square, "attn_k": square, "attn_v": square, "attn_output": square,
                "ffn_gate": wide, "ffn_up": wide, "ffn_down": tall}


LLAMA_2_7B = Shape("Llama 2 7B", layers=32, heads=32, width=4096, feed_forward=11008, vocabulary=32000, context=4096)


def random_blocks(random, rows, columns):
    """Codes are uniform in -8..7; the scale gives a product's outputs the size of its inputs."""
    blocks = random.integers(0, 256, (rows, columns // BLOCK, BLOCK_BYTES), numpy.uint8)
    scale = numpy.float16(1 / (4.6 * columns**0.5))
    blocks[:, :, :2] = numpy.frombuffer(scale.tobytes(), numpy.uint8)
    return blocks.reshape(rows, -1)


def add_metadata(writer, shape):
    writer.add_name(f"random model in the shape of {shape.name}")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("none")


def add_tensors(writer, shape):
    random = numpy.random.default_rng(1)

    def matrix(name, rows, columns):
        writer.add_tensor(f"{name}.weight", random_blocks(random, rows, columns), raw_dtype=Q4_0)

    def norm(name):
        writer.add_tensor(f"{name}.weight", numpy.ones(shape.width, numpy.float32))

    matrix("token_embd", shape.vocabulary, shape.width)
    for layer in range(shape.layers):
        norm(f"blk.{layer}.attn_norm")
        norm(f"blk.{layer}.ffn_norm")
        for name, size in shape.matrices_of_layer().items():
            matrix(f"blk.{layer}.{name}", *size)
    norm("output_norm")
    matrix("output", shape.vocabulary, shape.width)


def write_model(path, shape):
    part = path.with_suffix(".part")
    part.touch()  # a path that cannot be written is refused before the work
    # Tensors wait in a temporary file, not in memory.
    writer = gguf.GGUFWriter(part, "llama", use_temp_file=True)
    add_metadata(writer, shape)
    add_tensors(writer, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(path)


def main():
    parser = usage.Parser(prog="shaped_model.py", description=__doc__, epilog="example: shaped_model.py random-7b.Q4_0.gguf")
    parser.add_argument("file", metavar="FILE.gguf", type=Path)
    path = parser.parse_args().file
    try:
        write_model(path, LLAMA_2_7B)
    except OSError as error:
        sys.exit(f"shaped_model.py: {path}: {error.strerror}")


if __name__ == "__main__":
    main()
