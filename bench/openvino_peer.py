"""One measurement of OpenVINO GenAI as JSON: openvino_peer.py MODEL.gguf THREADS PROMPT DECODE DEPTH."""

import json
import sys

import numpy
import openvino
import openvino_genai

VOCABULARY = 1000  # ids below are text in every model


def main():
    model, (threads, prompt, decode, depth) = sys.argv[1], map(int, sys.argv[2:])
    pipeline = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)
    random, read = numpy.random.default_rng(20407), max(prompt, depth, 1)

    def generate(tokens):
        # New tokens each time: the pipeline remembers prompts it has read.
        ids = random.integers(100, VOCABULARY, size=(1, read), dtype=numpy.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(numpy.ones_like(ids)))
        config = openvino_genai.GenerationConfig(max_new_tokens=tokens, ignore_eos=True)
        return pipeline.generate(inputs, config).perf_metrics

    if read <= 1024:
        generate(2)  # warm up
    # Times in ms: to the first token, and per token after it.
    if prompt > 0:
        speed = prompt / generate(1).get_ttft().mean * 1000
    else:
        speed = 1000 / generate(decode + 1).get_tpot().mean
    print(json.dumps({"tokens_per_s": speed}))


if __name__ == "__main__":
    main()
