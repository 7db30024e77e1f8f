"""Teacher-forced step times: a measured run's own compositions through a run's cost model.

What is left of the error when nothing is scheduled anew: the error of single steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import InputError
from sim.forced_seconds import seconds_of, turns_of
from sim.profile import load_profile, shipped
from sim.result import read_json
from sim.scenario import Scenario
from sim.step_cost import cost_of
from sim.step_ready import load_of, prepared
from sim.step_residuals import residuals

if TYPE_CHECKING:
    from sim.cost import Cost
    from sim.profile import Profile
    from sim.step_log import StepLog

_MOST = 20_000


def cost_model(run: Path, profile: str | None) -> Cost:
    """The cost model that the simulated *run* had; *profile* names or replaces its profile.

    `InputError` if the run's profile is a file that is not given, or another one than it was.
    """
    return cost_of(*scenario_of(run, profile))


def scenario_of(run: Path, profile: str | None) -> tuple[Scenario, Profile]:
    """The scenario and the profile of the simulated *run*; `InputError` as in `cost_model`."""
    from pydantic import ValidationError

    data = read_json(run / "scenario.json")
    entry = data.get("profile")
    made: dict[str, Any] = entry if isinstance(entry, dict) else {}
    fields = {k: v for k, v in data.items() if k not in ("hash", "profile")}
    hardware = fields.get("hardware")
    if not isinstance(hardware, dict):
        raise InputError(f"{run}/scenario.json: is damaged; run the scenario again")
    named = str(made.get("name", ""))
    chosen = profile or (named if named in shipped() else None)
    if chosen is None:
        raise InputError(f"{run}: its profile was a file; give it with --profile PATH")
    try:
        scenario = Scenario.from_resolved(fields | {"hardware": hardware | {"profile": chosen}})
    except ValidationError:
        raise InputError(f"{run}/scenario.json: is of another version; run it again") from None
    loaded = load_profile(chosen if chosen in shipped() else Path(chosen))
    if made.get("hash") not in (None, loaded.hash):
        raise InputError(f"{chosen}: is not the profile that {run} was run with; give that one")
    return scenario, loaded


def forced(log: StepLog, cost: Cost, basis: str = "auto") -> tuple[dict[str, Any], Any, Any]:
    """Errors by region, measured and predicted seconds of the steps of *log* under *cost*."""
    chosen, seconds, _, _ = prepared(log, basis, 1)
    keep = np.arange(0, len(seconds), -(-len(seconds) // _MOST))
    chosen, seconds = chosen.take(keep), seconds[keep]
    load = load_of(chosen)
    predicted = seconds_of(cost, load) + turns_of(cost, chosen)
    return residuals(load, predicted, seconds), seconds, predicted
