"""ServeGen's client files: both forms, packed or not, what they make, and hostile ones."""

from __future__ import annotations

import json
import lzma
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sim.cli_trace import app
from sim.errors import InputError
from sim.trace.chunk import Tally
from sim.trace.generate import generate
from sim.trace.lengths import Length

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "client_id,window_start_s,rate_rps,iat_cv,iat_family,shape,scale\n"
# two clients: one steady, one bursty that sends four times as much in the second window
STEADY = "0,1.0,1.0,Gamma,1.0,1.0\n600,1.0,1.0,Gamma,1.0,1.0\n"
BURSTY = "0,0.5,3.0,Weibull,0.4,0.6\n600,2.0,3.0,Weibull,0.4,0.2\n"
LENGTHS = {
    "0": {"input_tokens": "{100: 0.5, 200: 0.5}", "output_tokens": "{10: 1.0}"},
    "600": {"input_tokens": "{300: 1.0}", "output_tokens": "{20: 0.25, 30: 0.75}"},
}
OTHER = {"0": {"input_tokens": "{7: 1.0}", "output_tokens": "{1: 1.0}"}}
PMF = {"pmf": {"all": {"input_tokens": {"100": 1, "200": 3}, "output_tokens": {"10": 1}}}}


def published(folder: Path, trace: str = STEADY, lengths: Any = LENGTHS, number: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"chunk-{number}-trace.csv").write_text(trace)
    text = lengths if isinstance(lengths, str) else json.dumps(lengths)
    (folder / f"chunk-{number}-dataset.json").write_text(text)
    return folder


def consolidated(folder: Path, rows: str, pmf: Any = PMF, *, xz: bool = False) -> Path:
    text = pmf if isinstance(pmf, str) else json.dumps(pmf)
    files = {"own_clients.csv": rows, "own_length_pmf.json": text}
    for name, content in files.items():
        if xz:
            (folder / f"{name}.xz").write_bytes(lzma.compress(content.encode()))
        else:
            (folder / name).write_text(content)
    return folder / ("own_clients.csv.xz" if xz else "own_clients.csv")


def rows_of(trace: str, client: str) -> str:
    return "".join(f"{client},{line}\n" for line in trace.splitlines())


BOTH = HEADER + rows_of(STEADY, "a") + rows_of(BURSTY, "b")


def made(path: Path, n: int = 1000, seed: int = 0, **given: Any) -> tuple[np.ndarray, ...]:
    """Times, prompt and output tokens."""
    chunks = list(generate("servegen", n, seed, clients=path, **given))
    columns = ("arrival_s", "prompt_tokens", "output_tokens")
    return tuple(np.concatenate([getattr(c, name) for c in chunks]) for name in columns)


def refused(path: Path, **given: Any) -> str:
    with pytest.raises(InputError) as caught:
        made(path, 10, **given)
    (line,) = caught.value.lines
    assert line.isprintable()
    assert len(line) < 500
    return line


# what they make -----------------------------------------------------------------------------


def test_published_clients_send_as_often_as_their_windows_say(tmp_path: Path) -> None:
    published(tmp_path, BURSTY)
    at, prompt, output = made(tmp_path, 1500 + 300)
    # 300 requests in the first ten minutes, 1200 in the next; then all over again
    first = np.searchsorted(at, 600.0 - 120.0)  # the first request, at 0 s, is not at its start
    assert 200 <= first <= 301
    assert at[1499] == pytest.approx(1200, abs=120)
    assert set(prompt[:200]) == {100, 200}
    assert (prompt[:290] == 100).mean() == pytest.approx(0.5, abs=0.1)
    assert set(output[:290]) == {10}
    assert set(prompt[320:1480]) == {300}
    assert set(output[320:1480]) == {20, 30}
    assert (output[320:1480] == 30).mean() == pytest.approx(0.75, abs=0.05)
    assert set(prompt[1550:]) == {100, 200}


def test_gaps_are_those_of_the_family_and_shape(tmp_path: Path) -> None:
    # a window has about 6,000 requests; a CV of 1, 2 and the Weibull's of shape 0.5
    for name, family, shape, cv in (
        ("a", "Gamma", 1.0, 1.0), ("b", "Gamma", 0.25, 2.0), ("c", "Weibull", 0.5, 5**0.5),
    ):  # fmt: skip
        folder = published(tmp_path / name, f"0,10.0,1.0,{family},{shape},1.0\n", OTHER)
        gaps = np.diff(made(folder, 5900)[0])
        assert gaps.mean() == pytest.approx(0.1, rel=0.05)
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.12)


def test_clients_have_lengths_of_their_own(tmp_path: Path) -> None:
    published(tmp_path, "0,1.0,1.0,Gamma,1.0,1.0\n", OTHER, 0)
    published(tmp_path, "0,3.0,1.0,Gamma,1.0,1.0\n", LENGTHS, 12)
    _, prompt, output = made(tmp_path, 2390)
    assert set(prompt) == {7, 100, 200}
    assert (prompt == 7).mean() == pytest.approx(0.25, abs=0.02)
    assert ((prompt == 7) == (output == 1)).all()


def test_prompts_are_the_sum_of_text_and_images(tmp_path: Path) -> None:
    tally = Tally()
    lengths = {
        "0": {"text_tokens": "{10: 1}", "image_tokens": "{0: 1, 1000: 1}", "x": "{1: 1}",
              "output_tokens": "{5: 1}"}
    }  # fmt: skip
    published(tmp_path, STEADY, lengths)
    (chunk,) = generate("servegen", 400, 0, clients=tmp_path, tally=tally)
    assert set(chunk.prompt_tokens.tolist()) == {10, 1010}
    assert tally.notes == [
        "cv and scale of a window are not used: its gaps are stretched to fill it",
        "not used of the clients' lengths: 'x'",
    ]


def test_parts_of_the_day_without_lengths(tmp_path: Path) -> None:
    tally = Tally()
    gap = {"0": LENGTHS["0"], "600": {"input_tokens": "{}", "output_tokens": "{}"}}
    published(tmp_path, BURSTY, gap)
    chunks = list(generate("servegen", 1400, 0, clients=tmp_path, tally=tally))
    assert {*np.concatenate([c.prompt_tokens for c in chunks]).tolist()} == {100, 200}
    assert "parts of the day without lengths have those of the part before them" in tally.notes


@pytest.mark.parametrize("xz", [False, True])
def test_the_consolidated_form(tmp_path: Path, xz: bool) -> None:
    path = consolidated(tmp_path, BOTH, xz=xz)
    at, prompt, output = made(path, 2600)
    assert (prompt == 200).mean() == pytest.approx(0.75, abs=0.03)
    assert set(output) == {10}
    assert at[-1] == pytest.approx(1200, abs=120)  # 900 and 1800 requests
    for other in (made(tmp_path, 2600), made(path, 3000)):  # the folder; a longer trace
        assert all(
            np.array_equal(ours, theirs[:2600])
            for ours, theirs in zip((at, prompt, output), other, strict=True)
        )
    assert not np.array_equal(at, made(path, 2600, 1)[0])


def test_packed_published_files_are_the_same_clients(tmp_path: Path) -> None:
    plain = published(tmp_path / "plain", BURSTY)
    packed = tmp_path / "packed"
    packed.mkdir()
    for file in plain.iterdir():
        (packed / f"{file.name}.xz").write_bytes(lzma.compress(file.read_bytes()))
    for ours, theirs in zip(made(plain), made(packed), strict=True):
        assert np.array_equal(ours, theirs)


def test_lengths_by_quarter_of_the_day(tmp_path: Path) -> None:
    rows = HEADER + "".join(f"a,{600 * n},0.1,1,Gamma,1,1\n" for n in range(144 + 40))
    pmf = {
        "pmf": {
            "all": {"input_tokens": {"9": 1}, "output_tokens": {"9": 1}},
            "00-06": {"input_tokens": {"1": 1}, "output_tokens": {"5": 1}},
            "06-12": {"input_tokens": {"2": 1}, "output_tokens": {"5": 1}},
            "12-18": {"input_tokens": {"3": 1}, "output_tokens": {"5": 1}},
            "18-24": {"input_tokens": {"4": 1}, "output_tokens": {"5": 1}},
        }
    }
    at, prompt, _ = made(consolidated(tmp_path, rows, pmf), 60 * 184)
    inside = (at % 21_600 > 600) & (at % 21_600 < 21_000)
    assert np.array_equal(prompt[inside], (at[inside] // 21_600).astype(int) % 4 + 1)
    _, prompt, _ = made(tmp_path, 50, start_hour=13.0)
    assert set(prompt) == {3}


def test_knobs_beside_files(tmp_path: Path) -> None:
    path = published(tmp_path, BURSTY)
    # 1.25 a second over both windows
    slow = made(path, 1200, rate_per_s=0.125)[0]
    assert 1199 / slow[-1] == pytest.approx(0.125, rel=0.15)
    lengths: dict[str, Any] = {"prompt": Length("fixed", mean=3), "output": Length("fixed", mean=4)}
    _, prompt, output = made(path, 50, **lengths)
    assert (set(prompt), set(output)) == ({3}, {4})
    (tmp_path / "chunk-0-dataset.json").unlink()  # then lengths of files are not needed
    assert set(made(path, 50, **lengths)[1]) == {3}
    assert "dataset.json' beside it" in refused(path) or "no chunk-0-dataset" in refused(path)
    assert "start_hour: 0.5 is not in 0 to below 0.333333" in refused(
        path, start_hour=0.5, **lengths
    )


@pytest.mark.parametrize("shape", ["0.0001", "0.01", "1000000"])
@pytest.mark.parametrize("family", ["Gamma", "Weibull"])
def test_extreme_shapes_leave_other_clients_alone(tmp_path: Path, family: str, shape: str) -> None:
    """Gaps of 1e300 and of nothing, added up with those of a steady client."""
    published(tmp_path, f"0,1.0,1.0,{family},{shape},1.0\n", OTHER, 0)
    published(tmp_path, "0,10.0,1.0,Gamma,1000000,1.0\n", {"0": LENGTHS["0"]}, 1)
    at, prompt, _ = made(tmp_path, 6500)
    assert np.isfinite(at).all()
    assert (np.diff(at) >= 0).all()
    steady = np.diff(at[prompt != 7])
    assert steady == pytest.approx(0.1, rel=0.02)


def test_a_window_far_away_is_reached_soon(tmp_path: Path) -> None:
    published(tmp_path, "600000,1.0,1.0,Gamma,1.0,1.0\n", OTHER)
    at = made(tmp_path, 700)[0]
    assert at[0] == 0.0
    assert at[-1] > 600_000  # the second round


# hostile files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        ("", "is empty"),
        ("\n\n", "no client sends anything"),
        ("0,0,0,,,\n", "no client sends anything"),
        ("0,1.0,1.0,Gamma,1.0\n", ":1: 5 cells, needs 6"),
        (STEADY + "1200,1.0,1.0,Gamma,1.0,1.0,9\n", ":3: 7 cells, needs 6"),
        ("t,rate,cv,family,shape,scale\n", ":1: t: 't' is no number"),
        ("nan,1.0,1.0,Gamma,1.0,1.0\n", ":1: t: 'nan' is no number"),
        ("-600,1.0,1.0,Gamma,1.0,1.0\n", ":1: t: '-600' is no start of a window of 600 s"),
        ("601,1.0,1.0,Gamma,1.0,1.0\n", ":1: t: '601' is no start of a window of 600 s"),
        ("6e300,1.0,1.0,Gamma,1.0,1.0\n", ":1: t: '6e300' is no start of a window"),
        ("0,nan,1.0,Gamma,1.0,1.0\n", ":1: rate: 'nan' is no number"),
        ("0,inf,1.0,Gamma,1.0,1.0\n", ":1: rate: 'inf' is no number"),
        ("0,-1.0,1.0,Gamma,1.0,1.0\n", ":1: rate: '-1.0' is not in 0 to 1,000,000 /s"),
        ("0,1e7,1.0,Gamma,1.0,1.0\n", ":1: rate: '1e7' is not in 0 to"),
        ("0," + "9" * 5000 + ",1.0,Gamma,1.0,1.0\n", ":1: rate: '999"),
        ("0,1e-300,1.0,Gamma,1.0,1.0\n", "1e-300 requests a second on average, 1e-06 is"),
        ("0,1e6,1.0,Gamma,1.0,1.0\n", "20,000,000 is the most; ask for a lower rate"),
        ("0,1.0,1.0,Pareto,1.0,1.0\n", ":1: family: 'Pareto' is neither Gamma nor Weibull"),
        ("0,1.0,1.0,Gamma,0,1.0\n", ":1: shape: '0' is not in"),
        ("0,1.0,1.0,Gamma,-1,1.0\n", ":1: shape: '-1' is not in"),
        ("0,1.0,1.0,Gamma,nan,1.0\n", ":1: shape: 'nan' is no number"),
        ("0,1.0,1.0,Gamma,1e9,1.0\n", ":1: shape: '1e9' is not in"),
        ("0,1.0,1.0,Gamma,__import__('os'),1.0\n", ":1: shape: \"__import__('os')\" is no"),
        ("0,\0,1.0,Gamma,1.0,1.0\n", ":1: "),
        ('"' + "x" * 200_000 + '",1,1,Gamma,1,1\n', ":1: field larger than field limit"),
    ],
)
def test_traces_of_clients_that_are_none(tmp_path: Path, trace: str, expected: str) -> None:
    line = refused(published(tmp_path, trace))
    assert expected.replace('"', "'") in line.replace('"', "'")


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ("", "is empty"),
        ("{", "not JSON"),
        ("[" * 200_000, "not JSON"),
        ('{"0": ' + "9" * 5000 + "}", "not JSON"),
        ("[]", "no windows"),
        ("{}", "no windows"),
        ({"x": LENGTHS["0"]}, "'x': start: 'x' is no number"),
        ({"-600": LENGTHS["0"]}, "no start of a window"),
        ({"1e300": LENGTHS["0"]}, "no start of a window"),
        ({"0": []}, "'0': [] is no object of distributions"),
        ({"0": {}}, "needs input_tokens (or text_tokens) and output_tokens"),
        ({"0": {"input_tokens": "{1: 1}"}}, "needs input_tokens (or text_tokens) and output"),
        ({"0": {"input_tokens": "{}", "output_tokens": "{}"}}, "no window has lengths"),
        ({"0": {"input_tokens": "{1: 0}", "output_tokens": "{1: 1}"}}, "no window has lengths"),
    ],
)
def test_lengths_of_clients_that_are_none(tmp_path: Path, lengths: Any, expected: str) -> None:
    line = refused(published(tmp_path, STEADY, lengths))
    assert "chunk-0-dataset.json" in line
    assert expected in line


@pytest.mark.parametrize(
    "value",
    [
        "", "{", "1", "{1}", "{1: }", "{: 1}", "{a: 1}", "{1: a}", "{-1: 1}", "{1.5: 1}",
        "{1: -1}", "{1: nan}", "{nan: 1}", "{1: inf}", "{1e400: 1}", "{1: 1e400}", "{10000001: 1}",
        "{1: 1e19}",
        "{1: 9**9**9**9}", "{'a'*10**9: 1}", "{1: __import__('os').system('touch pwned')}",
        "{1: {1: {1: 1}}}", "{" * 100_000 + "}", "{" + "9" * 5000 + ": 1}", "{1: 1, [1]: 2}",
        "{1: 1 for i in range(10**9)}", "{1: (lambda: 1)()}", "{1: True}", "\x1b[2J{1: 1}",
        "{1\n: x}",
        None, 5, [1, 2], True, {"x": 1}, {"1": None}, {"1": []}, {"1": True}, {"1": -1}, {"-1": 1},
        {"1": 10**400}, {"1" * 400: 1},
    ],
)  # fmt: skip
def test_bombs_in_place_of_distributions(
    tmp_path: Path, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lengths = {"0": {"input_tokens": value, "output_tokens": "{1: 1}"}}
    line = refused(published(tmp_path / "c", STEADY, lengths))
    assert "chunk-0-dataset.json: '0': input_tokens" in line
    assert not (tmp_path / "pwned").exists()
    line = refused(consolidated(tmp_path, BOTH, {"pmf": {"all": lengths["0"]}}))
    assert "own_length_pmf.json: pmf.all: input_tokens" in line


@pytest.mark.parametrize(
    ("rows", "pmf", "expected"),
    [
        ("", PMF, "is empty"),
        (HEADER, PMF, "no client sends anything"),
        (STEADY, PMF, ":1: 6 cells, needs 7"),
        (HEADER.replace("rate_rps", "rate"), PMF, ":1: the columns are 'client_id,window_start_s,"),
        (HEADER + "a,0,-1,1,Gamma,1,1\n", PMF, ":2: rate: '-1' is not in"),
        (HEADER + "a,0,nan,1,Gamma,1,1\n", PMF, ":2: rate: 'nan' is no number"),
        (HEADER + "a,0,1,1,Gamma,1\n", PMF, ":2: 6 cells, needs 7"),
        (BOTH, "[]", "pmf: missing"),
        (BOTH, {"pmf": []}, "pmf: missing"),
        (BOTH, {"pmf": {"noon": {}}}, "pmf: has none of all, 00-06"),
        (BOTH, {"pmf": {"all": {}}}, "pmf.all: needs input_tokens"),
        (
            BOTH,
            {"pmf": {"all": {"input_tokens": {}, "output_tokens": {}}}},
            "no part of the day has lengths",
        ),
        (BOTH, "{" * 200_000, "not JSON"),
    ],
)
def test_consolidated_files_that_are_none(
    tmp_path: Path, rows: str, pmf: Any, expected: str
) -> None:
    assert expected in refused(consolidated(tmp_path, rows, pmf))


def test_folders_and_files_that_are_no_clients(tmp_path: Path) -> None:
    assert "no chunk-N-trace.csv in the folder" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text(BOTH)
    assert "its name does not end in _clients.csv" in refused(tmp_path / "other.csv")
    path = consolidated(tmp_path, BOTH)
    (tmp_path / "own_length_pmf.json").unlink()
    assert "own_length_pmf.json beside it" in refused(path)
    (tmp_path / "more_clients.csv").write_text(BOTH)
    assert "(more_clients.csv, own_clients.csv); name the clients file itself" in refused(tmp_path)
    published(tmp_path / "mixed")
    for name in ("m-a-chunk-1-trace.csv", "m-b-chunk-1-trace.csv"):
        (tmp_path / "mixed" / name).write_text(STEADY)
    assert "clients of several models" in refused(tmp_path / "mixed")


def test_packed_files_that_are_cut_or_bombs(tmp_path: Path) -> None:
    path = consolidated(tmp_path, BOTH, xz=True)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert str(path) in refused(path)
    path.write_bytes(lzma.compress(b"\xff" * 1000))
    assert "not UTF-8" in refused(path)


def test_bad_files_leave_nothing_on_the_command_line(tmp_path: Path) -> None:
    folder = published(tmp_path / "c", "0,-1.0,1.0,Gamma,1.0,1.0\n")
    out = tmp_path / "out.jsonl"
    command = ["generate", "servegen", "--clients", str(folder), "--out", str(out)]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, InputError)
    assert f"{folder / 'chunk-0-trace.csv'}:1: rate: '-1.0'" in str(result.exception)
    assert not out.exists()
    published(tmp_path / "c", STEADY)
    result = CliRunner().invoke(app, [*command, "--requests", "20"])
    assert result.stdout == f"{out}: 20 requests\n"
    assert "cv and scale of a window are not used" in result.stderr
