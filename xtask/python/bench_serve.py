"""Tokens per second and latency of a server that speaks OpenAI's completions, under load.

    python bench_serve.py http://127.0.0.1:8080 --model small --model small:mix --streams 1,32 --ignore-eos
    python bench_serve.py http://127.0.0.1:8000 --model SmolLM2 --streams 1,32          # llama-cpp-python's server

Every stream asks one streamed completion after the other; the prompts are of mixed kinds, and the same for every
server. Python's standard library is all it needs. Pieces of an answer count as tokens where the server does not tell
the usage; times are those at which pieces arrive here.
"""

import argparse
import asyncio
import json
import statistics
import time
import urllib.parse

# As many kinds as fit a screen; --prompts takes a file of others.
KINDS = [
    "Dear Sir or Madam, I am writing to complain about",
    "fn main() {\n    let args: Vec<String> = std::env::args().collect();\n",
    "The treaty was signed in the year",
    "[server]\nhost = \"127.0.0.1\"\nport =",
    "Ingredients: two eggs, a cup of flour,",
    "SELECT name, count(*) FROM orders",
    "Patient presents with a history of",
    "Once upon a time there was a fox who",
    "#include <stdio.h>\n\nint main(void) {\n",
    "Question: What is the boiling point of water? Answer:",
    "The party of the first part shall",
    "def fibonacci(n):\n    \"\"\"Return the n-th number.\"\"\"\n",
]


def read_prompts(path):
    if path is None:
        return KINDS
    with open(path, encoding="utf-8") as file:
        return [json.loads(line)["text"][:400] for line in file if line.strip()]


class Measured:
    """What was seen of one load."""

    def __init__(self):
        self.first, self.between, self.tokens, self.failed = [], [], 0, 0


async def ask(where, options, model, prompt, measured):
    """One streamed completion."""
    request = {"model": model, "prompt": prompt, "max_tokens": options.tokens, "temperature": 0, "stream": True}
    if options.ignore_eos:
        request["chameleon"] = {"ignore_eos": True}
        request["stream_options"] = {"include_usage": True}
    body = json.dumps(request).encode()
    key = f"Authorization: Bearer {options.api_key}\r\n" if options.api_key else ""
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
        f"{key}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    begun = latest = time.perf_counter()
    writer.write(head.encode() + body)
    pieces, told, is_complete = 0, None, False
    try:
        if b" 200 " not in await reader.readline():
            measured.failed += 1
            return
        async for line in reader:
            if not line.startswith(b"data: "):
                continue
            data = line[6:].strip()
            if data == b"[DONE]":
                is_complete = True
                break
            piece = json.loads(data)
            if piece.get("usage"):
                told = piece["usage"]["completion_tokens"]
            if not piece.get("choices") or not piece["choices"][0].get("text"):
                continue
            now = time.perf_counter()
            (measured.between if pieces else measured.first).append(now - (latest if pieces else begun))
            latest, pieces = now, pieces + 1
    finally:
        writer.close()
    measured.tokens += pieces if told is None else told
    measured.failed += not is_complete


async def load(where, options, model, num_streams, prompts):
    measured = Measured()
    waiting = iter(range(max(options.requests, num_streams)))

    async def stream():
        for number in waiting:
            await ask(where, options, model, prompts[number % len(prompts)], measured)

    begun = time.perf_counter()
    await asyncio.gather(*(stream() for _ in range(num_streams)))
    return measured, time.perf_counter() - begun


def percentile(values, percent):
    if len(values) < 2:
        return values[0] if values else float("nan")
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--model", action="append", required=True, help="may be given several times")
    parser.add_argument("--streams", default="1,32", help="numbers of concurrent streams (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=32, help="answers in all, for each load (default: %(default)s)")
    parser.add_argument("--prompts", help="a .jsonl file with the field `text`, instead of the built-in prompts")
    parser.add_argument("--ignore-eos", action="store_true", help="always write all tokens; chameleon's server only")
    parser.add_argument("--api-key")
    options = parser.parse_args()
    where = urllib.parse.urlparse(options.address)
    prompts = read_prompts(options.prompts)
    # The first answer pays for what is loaded late, everywhere.
    asyncio.run(ask(where, options, options.model[0], prompts[0], Measured()))
    print("model                     streams  tokens/s  first p50   p99 ms  between p50   p99 ms  failed")
    for num_streams in map(int, options.streams.split(",")):
        for model in options.model:
            measured, seconds = asyncio.run(load(where, options, model, num_streams, prompts))
            first = [percentile(measured.first, percent) * 1e3 for percent in (50, 99)]
            between = [percentile(measured.between, percent) * 1e3 for percent in (50, 99)]
            print(
                f"{model:<24} {num_streams:>8} {measured.tokens / seconds:>9.1f} {first[0]:>10.1f} {first[1]:>8.1f} "
                f"{between[0]:>12.1f} {between[1]:>8.1f} {measured.failed:>7}"
            )


if __name__ == "__main__":
    main()
