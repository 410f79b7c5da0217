"""Traffic for a server of OpenAI's API: how long its clients wait, and whether some wait for others.

Requests arrive at random, by a seed: the same ones at the same times for every server. Some clients may read slowly,
leave in the middle, or send what is no request.
"""

import asyncio
import json
import random
import statistics
import sys
import time
from dataclasses import dataclass, field

import httpx2 as httpx
import usage

WORDS = "the sea was calm and every ship lay still under a grey sky while old men told of storms long gone by".split()
BROKEN = (b"", b"{", b'{"prompt": 1e999}', b'{"prompt": "x", "max_tokens": -1}', b"[" * 5000)
SLOW_PAUSE = 0.1  # seconds of a slow reader after each part


@dataclass
class Plan:
    """What one client does."""
    arrives: float  # seconds after the start
    words: int
    kind: str  # "plain", "slow", "gone" or "broken"
    leaves_after: int = 0  # parts of the answer, where it is gone then


@dataclass
class Outcome:
    plan: Plan
    status: int = 0
    began: float = 0
    parts: list = field(default_factory=list)  # when each part of the answer came
    prompt_tokens: int = 0
    tokens: int = 0
    complete: bool = False
    error: str = ""

    def first(self):
        return self.parts[0] - self.began

    def gaps(self):
        return [after - before for before, after in zip(self.parts, self.parts[1:])]

    def rate(self):
        """Tokens of the answer a second, from the first on."""
        return (self.tokens - 1) / max(self.parts[-1] - self.parts[0], 1e-9)


def plans_of(arguments):
    source = random.Random(arguments.seed)
    kinds = ("slow", "gone", "broken", "plain")
    shares = [arguments.slow, arguments.gone, arguments.broken]
    shares.append(max(0, 1 - sum(shares)))
    now, plans = 0.0, []
    for _ in range(arguments.requests):
        plans.append(Plan(now, source.randint(*arguments.prompt), source.choices(kinds, shares)[0], source.randint(1, 20)))
        if arguments.rate > 0:
            now += source.expovariate(arguments.rate)
    return plans


def prompt_of(words, seed):
    source = random.Random(seed)
    return " ".join(source.choice(WORDS) for _ in range(words))


async def read_answer(response, outcome):
    async for line in response.aiter_lines():
        if line == "data: [DONE]":
            outcome.complete = True
        elif line.startswith("data: "):
            part = json.loads(line[6:])
            if "error" in part:
                outcome.error = part["error"]["message"]
                return
            if part.get("usage"):
                outcome.prompt_tokens = part["usage"]["prompt_tokens"]
                outcome.tokens = part["usage"]["completion_tokens"]
            if part["choices"]:
                outcome.parts.append(time.monotonic())
            if outcome.plan.kind == "gone" and len(outcome.parts) >= outcome.plan.leaves_after:
                return
            if outcome.plan.kind == "slow":
                await asyncio.sleep(SLOW_PAUSE)


async def run_client(client, plan, number, start, arguments):
    outcome = Outcome(plan)
    await asyncio.sleep(max(0, start + plan.arrives - time.monotonic()))
    outcome.began = time.monotonic()
    body = BROKEN[number % len(BROKEN)]
    if plan.kind != "broken":
        body = json.dumps({"prompt": prompt_of(plan.words, number), "max_tokens": arguments.answer, "temperature": 0,
                           "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
                           **arguments.fields}).encode()
    try:
        async with client.stream("POST", arguments.url + "/v1/completions", content=body,
                                 headers={"Content-Type": "application/json"}) as response:
            outcome.status = response.status_code
            if response.status_code == 200:
                await read_answer(response, outcome)
    except httpx.HTTPError as error:
        outcome.error = f"{type(error).__name__}: {error}"
    return outcome


async def run_clients(plans, arguments):
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=arguments.timeout, limits=limits, trust_env=False) as client:
        start = time.monotonic()
        clients = [run_client(client, plan, i, start, arguments) for i, plan in enumerate(plans)]
        outcomes = await asyncio.gather(*clients)
        return outcomes, time.monotonic() - start


def resident(pid):
    """Bytes of memory that the process has."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def quantile(values, share):
    """None of no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def half_and_p99(values):
    return {"half": quantile(values, 0.5), "p99": quantile(values, 0.99)}


def report_of(outcomes, seconds, arguments):
    whole = [o for o in outcomes if o.plan.kind in ("plain", "slow") and o.complete]
    plain = [o for o in whole if o.plan.kind == "plain" and o.tokens > 1]
    rates = [o.rate() for o in plain]
    good = [o for o in plain if o.first() <= arguments.goal_first
            and (quantile(o.gaps(), 0.99) or 0) <= arguments.goal_gap]
    first, gaps = [o.first() for o in plain], [gap for o in plain for gap in o.gaps()]
    return {
        "url": arguments.url, "seed": arguments.seed, "requests": len(outcomes), "seconds": seconds,
        "complete": len(whole), "lost": sum(o.plan.kind in ("plain", "slow") and not o.complete for o in outcomes),
        "refused_broken": sum(o.plan.kind == "broken" and 400 <= o.status < 500 for o in outcomes),
        "broken": sum(o.plan.kind == "broken" for o in outcomes),
        "errors": sorted({o.error for o in outcomes if o.error}),
        "prompt_tokens": sum(o.prompt_tokens for o in whole), "tokens": sum(o.tokens for o in whole),
        "tokens_per_s": sum(o.tokens for o in whole) / seconds,
        "all_tokens_per_s": sum(o.tokens + o.prompt_tokens for o in whole) / seconds,
        "good_requests_per_s": len(good) / seconds,
        "first_token_s": half_and_p99(first),
        "between_tokens_s": half_and_p99(gaps),
        "slowest_over_median": min(rates) / statistics.median(rates) if rates else None,
    }


def print_table(report):
    def line(name, *values):
        print(f"{name:<28}" + "".join(f"{value:>12}" for value in values))

    def shown(value, digits=3):
        return "-" if value is None else f"{value:.{digits}f}"

    line("requests", report["requests"])
    line("complete, lost", report["complete"], report["lost"])
    line("broken, of these refused", report["broken"], report["refused_broken"])
    line("tokens/s of answers", shown(report["tokens_per_s"], 1))
    line("tokens/s with prompts", shown(report["all_tokens_per_s"], 1))
    line("good requests/s", shown(report["good_requests_per_s"]))
    for key, name in (("first_token_s", "first token, s (half, 99 %)"), ("between_tokens_s", "between tokens, s")):
        line(name, *(shown(value) for value in report[key].values()))
    line("slowest over median", shown(report["slowest_over_median"], 2))
    if "rss_bytes" in report:
        line("memory, MiB (before, after)", *(shown(size / (1 << 20), 1) for size in report["rss_bytes"]))
    for error in report["errors"]:
        print(f"error: {error}")


def length_range(text):
    least, _, most = text.partition("-")
    return usage.count(least), usage.count(most or least)


def parse_arguments():
    parser = usage.Parser(prog="serve_load.py", description=__doc__,
                          epilog="example: serve_load.py http://127.0.0.1:8080 --requests 16 --prompt 512-4096")
    parser.add_argument("url", metavar="URL", help="of the server, without a path")
    parser.add_argument("--requests", type=usage.count, default=16, metavar="N", help="default: 16")
    parser.add_argument("--rate", type=float, default=0, metavar="R", help="arrivals a second; 0: all at once (default)")
    parser.add_argument("--prompt", type=length_range, default=(512, 4096), metavar="A-B",
                        help="words of a prompt, about as many tokens (default: 512-4096)")
    parser.add_argument("--answer", type=usage.count, default=128, metavar="N", help="tokens of an answer (default: 128)")
    parser.add_argument("--fields", type=json.loads, default={}, metavar="JSON",
                        help="""more of each request: '{"a2sf": {"budget": 256}}'""")
    for name, what in (("slow", "read slowly"), ("gone", "leave in the middle"), ("broken", "send what is no request")):
        parser.add_argument(f"--{name}", type=float, default=0, metavar="SHARE", help=f"of clients that {what}, 0 to 1")
    parser.add_argument("--goal-first", type=float, default=5, metavar="S",
                        help="a good request has its first token after so long (default: 5)")
    parser.add_argument("--goal-gap", type=float, default=0.2, metavar="S",
                        help="and 99 %% of the others so long after the one before (default: 0.2)")
    parser.add_argument("--timeout", type=float, default=600, metavar="S", help="of a silent server (default: 600)")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--pid", type=usage.count, help="the server's process, whose memory is to be watched")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    try:
        before = resident(arguments.pid) if arguments.pid else 0
        outcomes, seconds = asyncio.run(run_clients(plans_of(arguments), arguments))
        report = report_of(outcomes, seconds, arguments)
        if arguments.pid:
            report["rss_bytes"] = [before, resident(arguments.pid)]
    except OSError as error:
        sys.exit(f"serve_load.py: {error.filename}: {error.strerror}")
    print(json.dumps(report, indent=2)) if arguments.json else print_table(report)
    if report["lost"] == report["requests"]:
        sys.exit(f"serve_load.py: {arguments.url} answers nothing")


if __name__ == "__main__":
    main()
