"""One measurement of OpenVINO GenAI as JSON: PROMPT tokens in one go or, where PROMPT is 0, DECODE tokens one by one."""

import json

import usage

VOCABULARY = 1000  # ids below are text in every model


def parse_arguments():
    parser = usage.Parser(prog="openvino_peer.py", description=__doc__, epilog="example: openvino_peer.py model.gguf 2 512 0 0")
    parser.add_argument("model", metavar="MODEL.gguf")
    parser.add_argument("threads", metavar="THREADS", type=usage.count)
    for name, text in (("prompt", "tokens"), ("decode", "tokens"), ("depth", "tokens read before")):
        parser.add_argument(name, metavar=name.upper(), type=int, help=text)
    return parser.parse_args()


def measure(model, threads, prompt, decode, depth):
    """Tokens per second."""
    import numpy
    import openvino
    import openvino_genai

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
        return prompt / generate(1).get_ttft().mean * 1000
    return 1000 / generate(decode + 1).get_tpot().mean


if __name__ == "__main__":
    print(json.dumps({"tokens_per_s": measure(**vars(parse_arguments()))}))
