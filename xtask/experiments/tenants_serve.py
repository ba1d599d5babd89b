"""Measures groups by key on a running server: time to the first adapted answer, mixed decoding, isolation.

Usage: python tenants_serve.py http://127.0.0.1:8080 MODEL ADAPTER test.jsonl [--keys 100] [--requests 1000] [--rows 16]

MODEL:ADAPTER is an adapter with learned steps that has no examples yet; test.jsonl is one that tenants.py wrote. Rows of
its tenants become the examples of KEYS keys (a tenant serves several keys), and other rows are asked. Everything is
greedy. Prints JSON. Needs nothing but Python; all keys are deleted at the end.

1. From the POST of the examples of one key to the first answer that uses them, alone, five keys; and what other
   requests take meanwhile.
2. Tokens per second of --rows streams at once: the base model, all rows one key, each row another key.
3. Requests of all keys, mixed, 16 at a time: is each answer, with its probabilities, the one that the key gets alone?
   Each key has a canary word in its examples: does another key's answer hold it?
"""

import argparse
import json
import random
import statistics
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor


def call(address, method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=600) as response:
        return json.loads(response.read())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("adapter")
    parser.add_argument("rows_file")
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=16)
    options = parser.parse_args()
    address, adapted = options.address, f"{options.model}:{options.adapter}"
    by_tenant = {}
    for line in open(options.rows_file, encoding="utf-8"):
        row = json.loads(line)
        by_tenant.setdefault(row["tenant"], []).append(row)
    tenants = list(by_tenant.values())
    rng = random.Random(1)

    def add(key_idx, num=16):
        """Examples of a key, the last with its canary."""
        rows = rng.sample(tenants[key_idx % len(tenants)][:64], num)
        examples = [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]
        examples[-1]["completion"] += f" canary{key_idx}x"
        call(address, "POST", f"/v1/groups/key-{key_idx}/examples", {"model": adapted, "examples": examples})

    def ask(key_idx, prompt, max_tokens=24, ignore_eos=False):
        body = {"model": adapted, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "logprobs": 1}
        body["chameleon"] = {"ignore_eos": ignore_eos}
        if key_idx is None:
            body["model"] = options.model
        else:
            body["chameleon"]["group"] = f"key-{key_idx}"
        start = time.monotonic()
        choice = call(address, "POST", "/v1/completions", body)["choices"][0]
        return choice, time.monotonic() - start

    result = {"first_adapted_seconds": [], "others_seconds": []}
    with ThreadPoolExecutor(options.rows) as pool:
        idle = [ask(None, "how are you ->", 8)[1] for _ in range(5)]
        for key_idx in range(5):
            start = time.monotonic()
            add(key_idx)
            waiting = pool.submit(ask, key_idx, tenants[key_idx][70]["prompt"])
            while not waiting.done():
                result["others_seconds"].append(ask(None, "how are you ->", 8)[1])
            assert waiting.result()[0]["chameleon"]["num_examples"] == 16
            result["first_adapted_seconds"].append(time.monotonic() - start)
        result["others_idle_seconds"] = statistics.median(idle)
        result["others_seconds"] = statistics.median(result["others_seconds"])

        start = time.monotonic()
        for key_idx in range(5, options.keys):
            add(key_idx)
        while any(
            group["state"] != "ready" for group in call(address, "GET", f"/v1/groups?model={adapted}")["data"]
        ):
            time.sleep(1)
        result["seconds_for_all_keys"] = time.monotonic() - start

        def speed(keys):
            rates = []
            for _ in range(3):
                start = time.monotonic()
                list(pool.map(lambda key_idx: ask(key_idx, "where is my card ->", 64, True), keys))
                rates.append(64 * len(keys) / (time.monotonic() - start))
            return max(rates)

        num = options.rows
        result["tokens_per_second"] = {
            "base": speed([None] * num),
            "one key": speed([0] * num),
            "mixed keys": speed(list(range(num))),
            "base again": speed([None] * num),
        }

        asked = []
        for _ in range(options.requests):
            key_idx = rng.randrange(options.keys)
            asked.append((key_idx, rng.choice(tenants[rng.randrange(len(tenants))][64:])["prompt"]))
        together = list(pool.map(lambda one: ask(*one)[0], asked))
        alone = {}
        different = leaked = 0
        for one, answer in zip(asked, together):
            if one not in alone:
                choice = ask(*one)[0]
                alone[one] = (choice["text"], choice["logprobs"])
            different += (answer["text"], answer["logprobs"]) != alone[one]
            found = [word for word in answer["text"].split() if word.startswith("canary")]
            leaked += any(word != f"canary{one[0]}x" for word in found)
        result["requests"] = {"asked": len(asked), "different from alone": different, "with another key's canary": leaked}
    for key_idx in range(options.keys):
        call(address, "DELETE", f"/v1/groups/key-{key_idx}?model={adapted}")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
