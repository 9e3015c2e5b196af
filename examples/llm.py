"""A small Llama-like language model: a prefill and a decode artifact that share one key-value cache.

    trtcross build examples.llm:prefill -o prefill.pt2 --precision fp16 \\
        --dynamic ids.1=2:64:256 --dynamic positions.0=2:64:256
    trtcross build examples.llm:decode -o decode.pt2 --precision fp16
    python -m examples.llm prefill.pt2 decode.pt2 --json

`prefill_large` and `decode_large` are 20 times as large (`--large`). The last command needs a GPU but not the producer.
It generates tokens (greedy and sampled), compares 64 steps of decoding with eager PyTorch, and measures tokens a second
for the artifacts, eager PyTorch and compiled PyTorch.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

Step = Callable[[Tensor, Tensor], Tensor]

# Vocabulary, width, layers, heads, cache length: 9 million weights and 180 million weights.
SMALL, LARGE = (1024, 384, 4, 6, 512), (8192, 1024, 12, 16, 512)
PROMPT, STEPS = 64, 64


class Attention(nn.Module):
    """Rotary attention over a key-value cache of fixed length, into which each call writes at its positions."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads, size = heads, width // heads
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.register_buffer("keys", torch.zeros(1, heads, length, size), persistent=False)
        self.register_buffer("values", torch.zeros(1, heads, length, size), persistent=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], seen: Tensor, positions: Tensor) -> Tensor:
        split = self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)
        self.keys.index_copy_(2, positions, rotated(key, rotation))
        self.values.index_copy_(2, positions, value)
        mixed = F.scaled_dot_product_attention(rotated(query, rotation), self.keys, self.values, attn_mask=seen)
        return self.out(mixed.transpose(1, 2).flatten(2))


def rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Applies a rotary embedding, which rotates the two halves of each head as the components of a vector."""
    first, second = x.chunk(2, -1)
    return x * rotation[0] + torch.cat([-second, first], -1) * rotation[1]


class Block(nn.Module):
    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.before, self.between = nn.RMSNorm(width, 1e-6), nn.RMSNorm(width, 1e-6)
        self.attention = Attention(width, heads, length)
        self.gate, self.up = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, 3 * width, bias=False)
        self.down = nn.Linear(3 * width, width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], seen: Tensor, positions: Tensor) -> Tensor:
        x = x + self.attention(self.before(x), rotation, seen, positions)
        hidden = self.between(x)
        return x + self.down(F.silu(self.gate(hidden)) * self.up(hidden))


class Llama(nn.Module):
    """Computes the logits of the next token from the token ids of one text, (1, n), and their positions, (n,)."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads, length) for _ in range(layers))
        self.norm = nn.RMSNorm(width, 1e-6)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.size = width // heads

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        frequencies = 10000.0 ** (-torch.arange(0, self.size, 2, device=ids.device) / self.size)
        angles = (positions[:, None].float() * frequencies).repeat(1, 2)
        x = self.embedding(ids)
        rotation = (angles.cos().to(x.dtype), angles.sin().to(x.dtype))
        seen = torch.arange(self.length, device=ids.device) <= positions[:, None]
        for block in self.blocks:
            x = block(x, rotation, seen, positions)
        return self.head(self.norm(x[:, -1:])).squeeze(1)


def model(*sizes: int) -> Llama:
    """Makes a model with random weights from a fixed seed."""
    torch.manual_seed(0)
    return Llama(*(sizes or SMALL)).eval()


def prefill(*sizes: int) -> tuple[nn.Module, tuple[Any, ...]]:
    """Processes a prompt at once; build it with dynamic ids.1 and positions.0."""
    return model(*sizes), (torch.arange(8)[None] + 1, torch.arange(8))


def decode(*sizes: int) -> tuple[nn.Module, tuple[Any, ...]]:
    """Processes one token, whose key and value are written into the cache in place."""
    return model(*sizes), (torch.tensor([[1]]), torch.tensor([0]))


def prefill_large() -> tuple[nn.Module, tuple[Any, ...]]:
    return prefill(*LARGE)


def decode_large() -> tuple[nn.Module, tuple[Any, ...]]:
    return decode(*LARGE)


def greedy(logits: Tensor) -> Tensor:
    """Picks the most probable token."""
    return logits.argmax(-1, keepdim=True)


def sampled(logits: Tensor, temperature: float = 0.8, top: int = 50) -> Tensor:
    """Draws one of the ``top`` most probable tokens, by their probabilities."""
    likeliest = logits.float().topk(top, -1)
    drawn = torch.multinomial(torch.softmax(likeliest.values / temperature, -1), 1)
    return likeliest.indices.gather(-1, drawn)


def generate(
    prefill_step: Step, decode_step: Step, prompt: Tensor, count: int, pick: Callable[[Tensor], Tensor] = greedy
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields each new token, of shape (1, 1), and the logits from which it was picked.

    Args:
        prefill_step: called once with the prompt.
        decode_step: called for each further token; it must have the cache of ``prefill_step``.
        prompt: token ids, of shape (1, n).
        count: how many tokens to generate.
        pick: chooses a token by its logits.
    """
    position = torch.arange(prompt.shape[1], device=prompt.device)
    logits = prefill_step(prompt, position)
    position = position[-1:] + 1
    for index in range(count):
        token = pick(logits)
        yield token, logits
        if index + 1 < count:
            logits = decode_step(token, position)
            position = position + 1


def compare(ours: tuple[Step, Step], theirs: tuple[Step, Step], prompt: Tensor, count: int = STEPS) -> dict[str, Any]:
    """Compares the logits of two models along the greedy tokens of the second one."""
    expected = list(generate(*theirs, prompt, count))
    tokens = iter([token for token, _ in expected])
    got = [logits for _, logits in generate(*ours, prompt, count, lambda _: next(tokens))]
    errors = [
        float((logits.double() - wanted.double()).norm() / wanted.double().norm())
        for logits, (_, wanted) in zip(got, expected, strict=True)
    ]
    same = sum(int(greedy(logits).equal(token)) for logits, (token, _) in zip(got, expected, strict=True))
    return {
        "steps": count,
        "worst_relative_l2": max(errors),
        "last_relative_l2": errors[-1],
        "same_greedy_tokens": same,
    }


def tokens_per_second(steps: tuple[Step, Step], prompt: Tensor, count: int = STEPS, repeats: int = 3) -> float:
    """Measures greedy decoding without the prefill; the best of some runs."""
    best = 0.0
    for _ in range(repeats + 1):  # the first one warms up
        tokens = generate(*steps, prompt, count)
        next(tokens)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in tokens:
            pass
        torch.cuda.synchronize()
        best = max(best, (count - 1) / (time.perf_counter() - start))
    return best


def _loaded(paths: tuple[str, str]) -> tuple[Step, Step]:
    from windows_side import load

    first, step = (load(path, device="cuda:0", cuda_graphs=True, allow_unlisted_gpu=True) for path in paths)
    step.share_state(first)
    return first, step


def _compiled(original: nn.Module) -> Step:
    return torch.compile(original, mode="reduce-overhead", fullgraph=True)


def report(paths: tuple[str, str], sizes: tuple[int, ...] = SMALL) -> dict[str, Any]:
    """Generates, compares and measures on this GPU: the two artifacts, and PyTorch in fp32 and fp16."""
    torch.manual_seed(1)
    prompt = torch.randint(1, sizes[0], (1, PROMPT), device="cuda:0")
    ours = _loaded(paths)
    result: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    with torch.inference_mode():
        exact = model(*sizes).cuda()
        result["against_eager_fp32"] = compare(ours, (exact, exact), prompt)
        half = model(*sizes).half().cuda()
        result["eager_fp16_against_eager_fp32"] = compare((half, half), (exact, exact), prompt)
        result["greedy"] = [int(token) for token, _ in generate(*ours, prompt, 16)]
        result["sampled"] = [int(token) for token, _ in generate(*ours, prompt, 16, sampled)]
        speed = {"artifacts": tokens_per_second(ours, prompt), "eager fp16": tokens_per_second((half, half), prompt)}
        try:
            speed["compiled fp16"] = tokens_per_second((half, _compiled(half)), prompt)
        except Exception as error:  # noqa: BLE001 - the compiler may be missing, and the other figures hold
            result["not_compiled"] = f"{type(error).__name__}: {error}"[:300]
    return {**result, "tokens_per_second": {name: round(value, 1) for name, value in speed.items()}}


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs a prefill and a decode artifact that share one cache.")
    parser.add_argument("prefill")
    parser.add_argument("decode")
    parser.add_argument("--large", action="store_true", help="they were built from prefill_large and decode_large")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON document")
    options = parser.parse_args()
    result = report((options.prefill, options.decode), LARGE if options.large else SMALL)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name}: {value}")
    return 0 if result["against_eager_fp32"]["worst_relative_l2"] < 2e-2 else 6


if __name__ == "__main__":
    sys.exit(main())
