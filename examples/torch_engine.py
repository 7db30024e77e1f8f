"""A small serving engine in plain PyTorch, to calibrate the simulator on an engine that is not its.

Continuous batching over a Llama-like decoder with random weights: each step decodes one token of
every running request, then computes chunks of prompts within a token budget. Requests arrive in
real time. It knows nothing of residentsim and logs as one does for oneself:

    python examples/torch_engine.py --rate 2:30 --requests 600 --seed 1 --out runs/fit
    python examples/torch_engine.py --rate 18 --requests 400 --seed 2 --out runs/judge

Each folder gets `traffic.csv` (what was asked), `steps.json` (a dictionary a step: t0 in seconds,
ms, n_dec requests that decoded, ctx tokens of KV they read, n_pre prompts, of each prompt chunk
tokens computed after past ones) and `requests.jsonl` (arrival, first, tokens: seconds on the same
clock).
"""

from __future__ import annotations

import argparse
import csv
import heapq
import json
import random
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

try:
    import torch
    from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu
except ImportError:  # all but the model works without
    torch = None

SIZES = {  # layers, width, heads, KV heads, width of a head, width of the MLP, vocabulary
    "1b": (16, 2048, 32, 8, 64, 8192, 128256),
    "tiny": (2, 128, 4, 2, 32, 384, 2048),
}


# ---------------------------------------------------------------- traffic
@dataclass
class Request:
    """One request and what became of it."""

    id: int
    arrival: float
    prompt: int
    output: int
    slot: int = -1
    done: int = 0  # prompt tokens computed so far
    last: int = 0  # the token that comes next into the model
    times: list[float] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens in its KV cache."""
        return self.done + max(0, len(self.times) - 1)


def made(rate: str, count: int, seed: int, longest: int) -> list[Request]:
    """Poisson arrivals, lognormal lengths; a *rate* of `2:30` rises from 2 to 30 a second."""
    low, _, high = rate.partition(":")
    first, last = float(low), float(high or low)
    rng, now, requests = random.Random(seed), 0.0, []
    for number in range(count):
        # Time runs evenly from the first rate to the last: the rate grows with the root.
        share = number / count
        now += rng.expovariate((first**2 + share * (last**2 - first**2)) ** 0.5)
        prompt = min(longest // 2, max(4, round(rng.lognormvariate(5.5, 0.9))))
        output = min(longest // 2, max(1, round(rng.lognormvariate(4.6, 0.7))))
        requests.append(Request(number, now, prompt, output))
    return requests


def read(path: Path, longest: int) -> list[Request]:
    """Requests of a CSV file with arrival_s, prompt_tokens, output_tokens, in order of arrival."""
    with path.open(newline="") as file:
        names = ("arrival_s", "prompt_tokens", "output_tokens")
        rows = [[float(row[name]) for name in names] for row in csv.DictReader(file)]
    if any(prompt + output > longest for _, prompt, output in rows):
        raise SystemExit(f"{path}: a request is longer than --max-len {longest}")
    return [Request(n, at, int(p), int(o)) for n, (at, p, o) in enumerate(sorted(rows))]


# ---------------------------------------------------------------- scheduler
class Scheduler:
    """Who is computed in the next step: decoding requests first, then chunks of prompts."""

    def __init__(self, max_batch: int, budget: int) -> None:
        self.budget = budget  # tokens of a step
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.slots = list(range(max_batch))

    def plan(self) -> tuple[list[Request], list[tuple[Request, int]]]:
        """Requests that decode, and prompts with the number of tokens to compute of each."""
        decoding = [r for r in self.running if r.times]
        left = self.budget - len(decoding)
        chunks = []
        for request in [r for r in self.running if not r.times]:
            if left > 0:
                chunks.append((request, min(left, request.prompt - request.done)))
                left -= chunks[-1][1]
        while left > 0 and self.waiting and self.slots:
            request = self.waiting.popleft()
            request.slot = heapq.heappop(self.slots)  # the lowest, which keeps the batch short
            self.running.append(request)
            chunks.append((request, min(left, request.prompt)))
            left -= chunks[-1][1]
        return decoding, chunks

    def commit(self, decoding: list, chunks: list, tokens: list[int], now: float) -> None:
        """Takes the step's *tokens*, one for each request of the plan, in its order."""
        for request, count in chunks:
            request.done += count
        for request, token in zip([*decoding, *(r for r, _ in chunks)], tokens, strict=True):
            if request.done < request.prompt:
                continue
            request.last = token
            request.times.append(now)
            if len(request.times) == request.output:
                self.running.remove(request)
                heapq.heappush(self.slots, request.slot)


# ---------------------------------------------------------------- model
class Decoder:
    """Random weights and a KV cache of *max_batch* slots of *max_len* tokens."""

    def __init__(self, size: str, device: str, max_batch: int, max_len: int) -> None:
        self.device = device
        layers, width, self.heads, self.kv_heads, self.head, mlp, vocabulary = SIZES[size]
        kind = torch.bfloat16 if device.startswith("cuda") else torch.float32
        torch.manual_seed(0)

        def weight(*shape: int) -> torch.Tensor:
            return torch.randn(shape, device=device, dtype=kind) * shape[-1] ** -0.5

        rows = (self.heads + 2 * self.kv_heads) * self.head
        self.embedding = weight(vocabulary, width)
        self.ones = torch.ones(width, device=device, dtype=kind)
        self.layers = [
            (weight(rows, width), weight(width, self.heads * self.head), weight(2 * mlp, width),
             weight(width, mlp))
            for _ in range(layers)
        ]  # fmt: skip
        shape = (layers, 2, max_batch, self.kv_heads, max_len, self.head)
        self.cache = torch.zeros(shape, device=device, dtype=kind)
        self.max_len = max_len
        angle = 1.0 / 500_000 ** (torch.arange(0, self.head, 2, device=device) / self.head)
        turns = torch.outer(torch.arange(max_len, device=device), angle)
        self.cos = torch.cat([turns, turns], 1).cos().to(kind)[:, None]
        self.sin = torch.cat([turns, turns], 1).sin().to(kind)[:, None]

    def step(self, decoding: list, chunks: list) -> list[int]:
        """The next token of every request of a plan; waits for the device."""
        with torch.inference_mode():
            # Decoding rows stand in slots; those of others compute along and are thrown away.
            width = max((r.slot for r in decoding), default=-1) + 1
            ids, at = [0] * width, [self.max_len - 1] * width
            for request in decoding:
                ids[request.slot], at[request.slot] = request.last, request.length
            for request, count in chunks:
                rows = range(request.done, request.done + count)
                ids += [(request.id + place) % 1000 for place in rows]
                at += rows
            ids_, places = (torch.tensor(one, device=self.device) for one in (ids, at))
            longest = -(-max((r.length + 1 for r in decoding), default=1) // 64) * 64
            mask = torch.arange(min(longest, self.max_len), device=self.device)
            mask = (mask[None] <= places[:width, None])[:, None, None]
            x = self.embedding[ids_]
            for number, layer in enumerate(self.layers):
                x = self._layer(x, number, layer, places, mask, chunks, width)
            ends, row = [r.slot for r in decoding], width - 1
            for _, count in chunks:
                ends.append(row := row + count)
            x = self._norm(x[torch.tensor(ends, device=self.device)])
            return (x @ self.embedding.T).argmax(-1).tolist()

    def _norm(self, x):
        return rms_norm(x, (x.shape[-1],), self.ones)

    def _turned(self, x, places):
        left, right = x.chunk(2, -1)
        return x * self.cos[places] + torch.cat([-right, left], -1) * self.sin[places]

    def _layer(self, x, number, layer, places, mask, chunks, width):
        into, out, up, down = layer
        q, k, v = (self._norm(x) @ into.T).view(len(x), -1, self.head).split(
            [self.heads, self.kv_heads, self.kv_heads], 1)  # fmt: skip
        q, k = self._turned(q, places), self._turned(k, places)
        keys, values = self.cache[number]
        parts = []
        if width:
            slots = torch.arange(width, device=self.device)
            keys[slots, :, places[:width]] = k[:width]
            values[slots, :, places[:width]] = v[:width]
            # Queries that share a KV head stand as rows of one attention: no KV is repeated.
            shared = q[:width].reshape(width, self.kv_heads, -1, self.head)
            near = slice(0, width), slice(None), slice(0, mask.shape[-1])
            found = scaled_dot_product_attention(shared, keys[near], values[near], attn_mask=mask)
            parts.append(found.reshape(width, -1))
        row = width
        for request, count in chunks:
            rows, begin, end = slice(row, row + count), request.done, request.done + count
            keys[request.slot, :, begin:end] = k[rows].transpose(0, 1)
            values[request.slot, :, begin:end] = v[rows].transpose(0, 1)
            seen = torch.arange(end, device=self.device)[None] <= places[rows, None]
            whole = (
                one[request.slot, :, :end].repeat_interleave(self.heads // self.kv_heads, 0)[None]
                for one in (keys, values)
            )
            mine = q[rows].transpose(0, 1)[None]
            found = scaled_dot_product_attention(mine, *whole, attn_mask=seen)
            parts.append(found[0].transpose(0, 1).reshape(count, -1))
            row += count
        x = x + torch.cat(parts) @ out.T
        gate, rest = (self._norm(x) @ up.T).chunk(2, -1)
        return x + (silu(gate) * rest) @ down.T


# ---------------------------------------------------------------- loop
def serve(requests: list[Request], model, max_batch: int, budget: int):
    """Serves *requests* as they arrive; the steps, a dictionary each."""
    scheduler, steps, coming = Scheduler(max_batch, budget), [], deque(requests)
    zero = time.perf_counter()
    while coming or scheduler.waiting or scheduler.running:
        start = time.perf_counter() - zero
        while coming and coming[0].arrival <= start:
            scheduler.waiting.append(coming.popleft())
        decoding, chunks = scheduler.plan()
        if not decoding and not chunks:
            time.sleep(max(0.0, coming[0].arrival - start))
            continue
        step = {
            "t0": start, "ms": 0.0, "n_dec": len(decoding),
            "ctx": sum(r.length + 1 for r in decoding), "n_pre": len(chunks),
            "chunk": [count for _, count in chunks], "past": [r.done for r, _ in chunks],
            "queue": len(scheduler.waiting),
        }  # fmt: skip
        tokens = model.step(decoding, chunks)
        now = time.perf_counter() - zero
        scheduler.commit(decoding, chunks, tokens, now)
        step["ms"] = (time.perf_counter() - zero - start) * 1e3
        steps.append(step)
    return steps


def warmed(model, max_batch: int, budget: int) -> None:
    """Steps of every kind before the clock starts: libraries load, memory is allocated."""
    many = [Request(n, 0.0, 16 + 8 * n, 12) for n in range(min(max_batch, 24))]
    serve([*many, Request(99, 0.0, min(budget, 256), 2)], model, max_batch, budget)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for the logs")
    add("--rate", default="8", help="requests a second, or FROM:TO")
    add("--requests", type=int, default=200)
    add("--seed", type=int, default=0)
    add("--traffic", type=Path, help="a CSV to serve instead")
    add("--size", choices=SIZES, help="default: 1b on a GPU, tiny without")
    add("--device", help="default: cuda if there is one")
    add("--max-batch", type=int, default=32)
    add("--budget", type=int, default=512, help="tokens of a step at most")
    add("--max-len", type=int, default=2048, help="tokens of a request at most")
    add("--no-cudnn", action="store_true", help="attention that plans nothing for new shapes")
    args = parser.parse_args()
    if torch is None:
        raise SystemExit("needs PyTorch: pip install torch")
    own = (args.rate, args.requests, args.seed, args.max_len)
    requests = read(args.traffic, args.max_len) if args.traffic else made(*own)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.no_cudnn:
        torch.backends.cuda.enable_cudnn_sdp(False)
    if device == "cpu":
        torch.set_num_threads(1)  # threads that wait for each other make steps of any length
    size = args.size or ("1b" if device.startswith("cuda") else "tiny")
    model = Decoder(size, device, args.max_batch, args.max_len)
    warmed(model, args.max_batch, args.budget)
    steps = serve(requests, model, args.max_batch, args.budget)
    write(args.out, requests, steps)


def write(out: Path, requests: list[Request], steps: list[dict]) -> None:
    """The logs of a run, and a line that says what it was."""
    out.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{r.arrival:.6f},{r.prompt},{r.output}\n" for r in requests)
    (out / "traffic.csv").write_text(f"arrival_s,prompt_tokens,output_tokens\n{rows}")
    (out / "steps.json").write_text(json.dumps(steps, indent=0))
    with (out / "requests.jsonl").open("w") as file:
        for r in requests:
            row = {"id": r.id, "arrival": r.arrival, "prompt_len": r.prompt}
            file.write(json.dumps(row | {"first": r.times[0], "tokens": r.times}) + "\n")
    took = max(r.times[-1] for r in requests)
    wait = sorted((r.times[0] - r.arrival) * 1e3 for r in requests)
    busy = sum(step["ms"] for step in steps) / 1e3
    print(f"{out}: {len(requests)} requests, {sum(r.output for r in requests)} tokens in "
          f"{took:.1f} s, {len(steps)} steps, busy {busy / took:.0%}, TTFT p50 / p99 "
          f"{wait[len(wait) // 2]:.1f} / {wait[len(wait) * 99 // 100]:.1f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
