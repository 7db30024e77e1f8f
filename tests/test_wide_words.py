"""What the console says of wide iterations follows the summary."""

from __future__ import annotations

from sim import wide_words
from sim.scenario import Scenario
from sim.simulate import Simulation

BASE = {
    "trace": {
        "source": "synthetic", "requests": 6, "rate": "9 /s", "prompt_tokens": 3000,
        "output_tokens": 40,
    },
    "model": "llama-3.2-1b",
}  # fmt: skip


def said(**sections: object) -> str:
    return "\n".join(wide_words.lines(Simulation(Scenario.model_validate(BASE | sections)).run()))


def test_a_plain_run_says_nothing() -> None:
    assert said() == ""


def test_each_part_has_its_sentence() -> None:
    drafted = said(speculation={"draft": "eagle", "width": 3, "acceptance": 1.0})
    assert "speculation: 2.9 tokens a draft, 100.0% accepted" in drafted
    chosen = said(sparse={"select": "topk", "top_k_tokens": 512, "recall": 0.75})
    assert "page selection:" in chosen
    assert "assumed: 75.0%" in chosen
    width = {"controller": "load_aware", "thresholds": [{"batch": 1, "width": 0}]}
    none = said(speculation={"draft": "eagle", "width": width, "acceptance": 0.5})
    assert none == "speculation: nothing was drafted"


def test_a_summary_says_whether_outputs_stay_the_same() -> None:
    for rule, lossless in (("rejection", True), ("typical", False)):
        acceptance = {"rule": rule, "rate": 0.5}
        given = BASE | {"speculation": {"draft": "eagle", "width": 2, "acceptance": acceptance}}
        summary = Simulation(Scenario.model_validate(given)).run()
        assert (summary["spec_acceptance_rule"], summary["spec_lossless"]) == (rule, lossless)


def test_a_loop_that_leaves_says_how_often() -> None:
    loop = {"mode": "resident"}
    text = said(loop=loop, speculation={"draft": "eagle", "width": 3, "acceptance": 0.5})
    assert "the loop left the GPU" in text


def test_experts_that_are_fetched_are_told_of() -> None:
    text = said(
        model="qwen3-30b-a3b", moe={"offload": {"resident": 0.5, "prefetch": 0.0}},
    )  # fmt: skip
    assert "found in HBM" in text
    assert "fetched" in text
