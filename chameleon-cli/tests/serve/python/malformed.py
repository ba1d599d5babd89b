"""Thousands of requests that no client should send, seeded, against a running server.

    python malformed.py http://127.0.0.1:8123 MODEL [COUNT] [SEED]

Bytes that are no HTTP, bodies that are no JSON, values of the wrong type, size and sign, and clients that stop in the
middle. Fails on a status of 500 or more, on a server that no longer answers, and on places that are not freed.
"""

import json
import random
import socket
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter

PATHS = ["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/adapters"]
GETS = ["/v1/models/", "/v1/clusters?", "/v1/adapters/", "/", "/metrics", "/v1/"]
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "BREW"]


def value(rng, depth=0):
    """Anything that JSON can say."""
    kinds = [
        lambda: None,
        lambda: rng.choice([True, False]),
        lambda: rng.choice([0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**30, 1e308, -1e-320, 0.5]),
        lambda: rng.choice(["", "\0", "\ud7ff", "\U0010ffff", "../..", "x" * rng.randrange(2000), "<|im_end|>"]),
        lambda: "".join(chr(rng.randrange(1, 0xD7FF)) for _ in range(rng.randrange(20))),
    ]
    if depth < 4:
        kinds.append(lambda: [value(rng, depth + 1) for _ in range(rng.randrange(4))])
        kinds.append(lambda: {rng.choice("abc"): value(rng, depth + 1) for _ in range(rng.randrange(3))})
    return rng.choice(kinds)()


def body(rng, model):
    """A request with some of its values spoilt."""
    request = {
        "model": model,
        "prompt": "The fox",
        "messages": [{"role": "user", "content": "The fox"}],
        "input": "The fox",
        "max_tokens": rng.randrange(1, 4),
        "temperature": 0,
        "name": "x",
        "path": "x",
    }
    names = {
        "/v1/completions": ["model", "prompt", "max_tokens", "temperature"],
        "/v1/chat/completions": ["model", "messages", "max_tokens", "temperature"],
        "/v1/embeddings": ["model", "input"],
        "/v1/adapters": ["name", "path"],
    }
    path = rng.choice(PATHS)
    request = {name: request[name] for name in names[path]}
    more = ["stop", "n", "seed", "logprobs", "top_logprobs", "stream", "stream_options", "chameleon", "top_p", "echo"]
    more += ["tools", "user", "logit_bias", "encoding_format", "dimensions", "no_such_field"]
    for _ in range(rng.randrange(1, 4)):
        request[rng.choice([*request, *more])] = value(rng)
    text = json.dumps(request).encode()
    spoil = rng.randrange(6)
    if spoil == 0:
        text = text[: rng.randrange(len(text))]
    elif spoil == 1:
        at = rng.randrange(len(text))
        text = text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]
    return path, text


def message(rng, model):
    """The bytes of one request, and whether the server can tell that it is whole."""
    kind = rng.randrange(10)
    if kind == 0:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(1, 300))), False
    if kind == 1:
        junk = "".join(chr(rng.randrange(33, 127)) for _ in range(rng.randrange(40)))
        target = rng.choice(GETS) + urllib.parse.quote(junk, safe="%" if rng.random() < 0.3 else "")
        head = f"{rng.choice(METHODS)} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return head.encode(), True
    path, text = body(rng, model)
    length = len(text) if rng.random() < 0.9 else rng.choice([0, len(text) + 50, 10**12, -1])
    media = "application/json" if rng.random() < 0.95 else rng.choice(["text/plain", "", "application/json;x"])
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}\r\n"
        f"Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + text, length == len(text)


def send(address, raw, is_whole, rng):
    """The status of the answer; nothing when there was none, or when nobody waited for it."""
    with socket.create_connection(address, timeout=30) as connection:
        try:
            connection.sendall(raw)
            if rng.random() < 0.1:
                return "left"
            if not is_whole:
                # Else the server waits for the rest.
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            return "reset"
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else "none"


def stats(base):
    with urllib.request.urlopen(f"{base}/v1/stats") as answer:
        return json.load(answer)


def main():
    base, model = sys.argv[1:3]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 5000
    rng = random.Random(int(sys.argv[4]) if len(sys.argv) > 4 else 1)
    where = urllib.parse.urlparse(base)
    statuses = Counter()
    for _ in range(count):
        raw, is_whole = message(rng, model)
        status = send((where.hostname, where.port), raw, is_whole, rng)
        statuses[status] += 1
        if isinstance(status, int) and status >= 500:
            sys.exit(f"status {status} for {raw!r}")
    for _ in range(100):
        left = stats(base)
        if left["requests_running"] == left["requests_waiting"] == left["reserved_tokens"] == 0:
            break
        time.sleep(0.1)
    else:
        sys.exit(f"places were not freed: {left}")
    print(count, "requests:", dict(sorted(statuses.items(), key=str)))


if __name__ == "__main__":
    main()
