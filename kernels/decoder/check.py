"""Whole steps against float64 and PyTorch, drafts against plain decoding, modes against each other.

Cases with an `op`: `stages` (every launch by itself), `steps` (a batch with idle, finishing and
waiting slots), `drafts` (T > 1 emits what T = 1 does), and on a GPU `torch` and `modes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking import CheckError, close, equal, on_host
from ..element import decode
from .check_drafts import follow
from .check_stages import check_stages
from .library import LibraryStep
from .modes import make_mode
from .reference import Reference, check_tokens, snapshot
from .shape import SHAPES
from .state import DecoderState
from .weights import Weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..backend import Backend

CHAIN = 4e-2
"""Relative error of a whole step's logits against float64: bf16 between all stages. Twice that
where pages are selected: of two that score nearly alike, either may be taken."""
TORCH = 5e-2
"""The same against PyTorch, which rounds at other places, its rotary angles too."""
MODES = ("host-python", "host-c", "graph", "control")
Case = dict[str, Any]
_kept: dict[tuple[str, str], Weights] = {}


def cases(small: bool) -> Iterator[Case]:
    """Shapes to check: TINY on the CPU; also the 1B model on a GPU."""
    plain = {"model": "tiny", "batch": 3, "tokens": 1, "kv_bits": 16, "weight_bits": 16}
    plain |= {"budget_pages": 0, "page_tokens": 16}
    yield {"op": "stages", **plain, "tokens": 3, "budget_pages": 4}
    yield {"op": "stages", **plain, "kv_bits": 8, "weight_bits": 4}
    yield {"op": "steps", **plain, "steps": 8 if small else 64}
    yield {"op": "steps", **plain, "steps": 4, "tokens": 2, "kv_bits": 8, "budget_pages": 3}
    for guesses in ("true", "random"):
        steps = 8 if small else 64
        yield {"op": "drafts", **plain, "batch": 2, "tokens": 4, "steps": steps, "guesses": guesses}
    if small:
        return
    yield {"op": "modes", **plain, "steps": 256}
    real = {**plain, "model": "1b"}
    yield {"op": "stages", **real, "tokens": 8, "budget_pages": 16}
    yield {"op": "stages", **real, "kv_bits": 8, "weight_bits": 4}
    yield {"op": "steps", **real, "steps": 4, "weight_bits": 4}
    yield {"op": "drafts", **real, "batch": 2, "tokens": 4, "steps": 32, "guesses": "true"}
    for options in ({"batch": 1}, {"batch": 8}, {"tokens": 4}, {"kv_bits": 8}):
        yield {"op": "torch", **real, **options}
    yield {"op": "modes", **real, "batch": 1, "steps": 256}
    yield {"op": "modes", **real, "batch": 4, "steps": 64, "budget_pages": 8, "kv_bits": 8}


def check(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """Largest relative error of *case*; raises `CheckError`."""
    match case["op"]:
        case "stages":
            return check_stages(_step(backend, case, rng, idle=True))
        case "steps":
            return _check_steps(backend, case, rng)
        case "drafts":
            return _check_drafts(backend, case, rng)
        case "torch":
            return _check_torch(backend, case, rng)
    return _check_modes(backend, case, rng)


def weights_of(backend: Backend, model: str) -> Weights:
    """The model's weights with seed 1, made once for a kind of backend."""
    key = (backend.name, model)
    if key not in _kept:
        _kept[key] = Weights(backend, SHAPES[model])
    return _kept[key]


def _step(
    backend: Backend,
    case: Case,
    rng: np.random.Generator,
    idle: bool = False,
    lengths: list[int] | None = None,
    text_size: int = 512,
) -> LibraryStep:
    """A step over a fresh state; with *idle* the second request's slot holds nobody."""
    weights = weights_of(backend, case["model"])
    state = DecoderState(
        backend,
        weights.shape,
        case["batch"],
        case["tokens"],
        case["page_tokens"],
        text_size=text_size,
        kv_bits=case["kv_bits"],
    )
    found = lengths or [int(n) for n in np.atleast_1d(rng.integers(1, 200, case["batch"]))]
    if idle and case["batch"] > 1:
        found[1] = -1
    state.fill(found, [1 << 20] * case["batch"], rng)
    return LibraryStep(
        backend,
        weights,
        state,
        weight_bits=case["weight_bits"],
        budget_pages=case["budget_pages"],
    )


def _reference(step: LibraryStep) -> Reference:
    return Reference(step.weights, step.weight_bits, step.budget_pages)


def _logits(step: LibraryStep) -> Any:
    return decode(on_host(step.backend, step.logits), "bf16")


def _check_steps(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """Some steps with an idle slot, a request that ends and one that waits for its page."""
    step = _step(backend, case, rng, lengths=[30, -1, 47])
    state, reference, worst = step.state, _reference(step), 0.0
    chain = CHAIN * (2 if step.budget_pages else 1)
    state.slots.remaining[2] = 3
    for _ in range(case["steps"]):
        before = snapshot(state)
        step.launch()
        logits = _logits(step)
        want = reference.step(state, before)
        expected = on_host(backend, want.logits)
        for b in np.flatnonzero(before["lengths"] >= 0):
            rows = slice(b * state.tokens, (b + 1) * state.tokens)
            worst = max(worst, close(logits[rows], expected[rows], chain, "logits"))
        after = reference.committed_by(
            backend.xp.asarray(logits), before, state.tokens, state.page_tokens
        )
        check_tokens(expected, _first_choices(after, before))
        _same(state, after)
    equal(state.slots.all_pages(), np.arange(state.slots.pages), "pages")
    if int(state.slots.lengths[2]) != -1:
        raise CheckError("the request that wanted few tokens still runs")
    return worst


def _first_choices(after: Any, before: Any) -> Any:
    """The emitted tokens of each row, -1 where none was."""
    tokens = np.where(before["lengths"][:, None] >= 0, after["tokens"], -1)
    return tokens.reshape(-1)


def _same(state: DecoderState, after: Any) -> None:
    """Slots and text equal *after*; raises `CheckError`."""
    got = snapshot(state)
    for name in ("lengths", "remaining", "page_counts", "free_head", "free_tail", "text"):
        equal(got[name], after[name], name)
    for b in np.flatnonzero(after["lengths"] != -1):
        count = after["page_counts"][b]
        equal(got["table"][b, :count], after["table"][b, :count], f"pages of request {b}")


def _check_drafts(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """T > 1 emits what T = 1 emitted; drafts of the true continuation are all accepted.

    Where the two part, float64 must find a tie; then the first run's token is put in place.
    """
    lengths, batch = [20 + 9 * b for b in range(case["batch"])], case["batch"]
    seed = int(rng.integers(1 << 30))
    one = _step(backend, {**case, "tokens": 1}, np.random.default_rng(seed), lengths=lengths)
    many = _step(backend, case, np.random.default_rng(seed), lengths=lengths)
    worst, apart = follow(one, many, _reference(many), case["guesses"], case["steps"], rng)
    if apart > max(2, case["steps"] * batch // 8):
        raise CheckError(f"{apart} steps ended in a tie")
    return worst


def _check_torch(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """Logits of one step against PyTorch's on the same pages; both against float64."""
    from .torch_step import TorchStep

    context = 300
    step = _step(backend, case, rng, lengths=[context] * case["batch"])
    theirs = TorchStep(step.weights, case["batch"], context, case["tokens"])
    theirs.load(step.state)
    with theirs.torch.no_grad():
        theirs.step()
    theirs.torch.cuda.synchronize()
    want = theirs.logits.float().cpu().numpy().reshape(step.logits.shape)
    before = snapshot(step.state)
    step.launch()
    got = _logits(step)
    exact = on_host(backend, _reference(step).step(step.state, before).logits)
    check_tokens(exact, got.argmax(axis=1), "ours")
    check_tokens(exact, want.argmax(axis=1), "theirs")
    return max(close(got, exact, CHAIN, "logits"), close(got, want, TORCH, "against torch"))


def _check_modes(backend: Backend, case: Case, rng: np.random.Generator) -> float:
    """Equal tokens from every mode, and float64's token, up to a tie, every 32 steps."""
    step = _step(backend, case, rng)
    state, worst = step.state, 0.0
    chain = CHAIN * (2 if step.budget_pages else 1)
    saved, texts = state.save(pages=True), {}
    reference = _reference(step)
    for name in MODES:
        state.load(saved)
        mode = make_mode(step, name)
        for _ in range(case["steps"] // 32):
            mode.run(31)
            before = snapshot(state)
            mode.run(1)
            if name == "graph":
                exact = on_host(backend, reference.step(state, before).logits)
                worst = max(worst, close(_logits(step), exact, chain, "logits"))
                check_tokens(exact, snapshot(state)["tokens"].reshape(-1))
        texts[name] = on_host(backend, state.text).copy()
        equal(state.slots.all_pages(), np.arange(state.slots.pages), "pages")
        mode.close()
    for name, text in texts.items():
        equal(text, texts["graph"], f"text of {name}")
    return worst
