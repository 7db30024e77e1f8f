"""Public request traces: where their publishers keep them, under which licence, how to check them.

The one rule: facts only. A size or digest that is not known stands here as None, and the fetched
file's own is recorded then. The addresses are those that publishers document, or a documented form
of GitHub's made of repository, commit and path; none of them was tried when this was written, for
want of a network. Commits are pinned where one is known to hold the file.
"""

from __future__ import annotations

from dataclasses import dataclass

OWN_COPY = "measured on a copy of the file"
PUBLISHER = "the publisher's Git LFS pointer"
QUOTED = "as several public repositories quote it"


@dataclass(frozen=True, slots=True)
class PublicSet:
    """One file of one publisher; `url` None where there is no such file, and `how` to get it."""

    name: str
    what: str
    format: str
    """One of `names.FORMATS`; of ServeGen the source that draws from it."""
    source: str
    """The publisher's page."""
    licence: str
    file: str
    """What the file is called here."""
    url: str | None = None
    version: str = "unknown"
    """Commit, release or revision that the address pins."""
    size_bytes: int | None = None
    sha256: str | None = None
    told_by: str = ""
    """How size and digest are known."""
    how: str = ""


_CC_BY = "CC BY 4.0"
_APACHE = "Apache-2.0"
_AZURE = "https://github.com/Azure/AzurePublicDataset"
_AZURE_PAGE = f"{_AZURE}/blob/master"
_AZURE_COMMIT = "b469a113cedca53ddc3bdea71a143dc4b7d8700c"
_AZURE_2024 = "dataset-llm-2024"
_MOONCAKE = "https://github.com/kvcache-ai/Mooncake"
_MOONCAKE_COMMIT = "3b5a594133958449a1feaf1c9e0fc1b553e34a28"
_ARXIV_COMMIT = "dedfbde5daa3d5bc020adfd1d6e01c1d544f2098"
_BURST = "https://github.com/HPMLL/BurstGPT"
_BAILIAN = "https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon"
_BAILIAN_COMMIT = "5f7439c51ec248a0c585f7d90a41a6f57773b912"
_TESTER = "https://github.com/callanjfox/kv-cache-tester"
_TESTER_COMMIT = "94f6046dfd9c0c8bc0cdb24a5aa6579bac8669bf"
_WEKA = "https://huggingface.co/datasets/semianalysisai/cc-traces-weka-062126"
_WEKA_REVISION = "23f152f6f0f9399a85901b89a6458def0ef16729"
_SERVEGEN = "https://github.com/alibaba/ServeGen"
_SERVEGEN_COMMIT = "f891d1189eb32b3868dfc443800c4150548c282a"
_VIDUR = "https://github.com/microsoft/vidur"
_VIDUR_COMMIT = "7d47513363ec447a741ac5e47241580b47724fbf"


def _raw(repository: str, commit: str, path: str) -> str:
    """GitHub's address of the bytes of a file that Git itself holds."""
    return f"{repository}/{commit}/{path}".replace("github.com", "raw.githubusercontent.com", 1)


def _media(repository: str, commit: str, path: str) -> str:
    """GitHub's address of the bytes of a file that Git LFS holds."""
    host = "media.githubusercontent.com/media"
    return f"{repository}/{commit}/{path}".replace("github.com", host, 1)


def _azure_2023(kind: str, what: str, size: int | None, sha256: str, told_by: str) -> PublicSet:
    file = f"AzureLLMInferenceTrace_{kind}.csv"
    return PublicSet(
        f"azure-2023-{kind}", what, "azure",
        f"{_AZURE_PAGE}/AzureLLMInferenceDataset2023.md", _CC_BY, file,
        _raw(_AZURE, _AZURE_COMMIT, f"data/{file}"), f"commit {_AZURE_COMMIT}",
        size, sha256, told_by,
    )  # fmt: skip


def _azure_2024(kind: str, what: str, size: int, sha256: str) -> PublicSet:
    file = f"AzureLLMInferenceTrace_{kind}_1week.csv"
    return PublicSet(
        f"azure-2024-{kind}", what, "azure",
        f"{_AZURE_PAGE}/AzureLLMInferenceDataset2024.md", _CC_BY, file,
        f"{_AZURE}/releases/download/{_AZURE_2024}/{file}", f"release {_AZURE_2024}",
        size, sha256, QUOTED,
    )  # fmt: skip


def _mooncake(kind: str, what: str, size: int | None, sha256: str, told_by: str) -> PublicSet:
    file = f"{kind}_trace.jsonl"
    return PublicSet(
        f"mooncake-{kind}", what, "mooncake", f"{_MOONCAKE}/tree/main/FAST25-release",
        _APACHE, file, _raw(_MOONCAKE, _MOONCAKE_COMMIT, f"FAST25-release/traces/{file}"),
        f"commit {_MOONCAKE_COMMIT}", size, sha256, told_by,
    )  # fmt: skip


def _burstgpt(number: int, what: str, size: int, sha256: str, told_by: str) -> PublicSet:
    file = f"BurstGPT_{number}.csv"
    return PublicSet(
        f"burstgpt-{number}", what, "burstgpt", _BURST, _CC_BY, file,
        f"{_BURST}/releases/download/v2.0/{file}", "release v2.0", size, sha256, told_by,
    )  # fmt: skip


def _bailian(kind: str, what: str, size: int, sha256: str, told_by: str) -> PublicSet:
    file = f"qwen_{kind}_blksz_16.jsonl"
    return PublicSet(
        f"bailian-{kind.removeprefix('trace').lower()}", what, "bailian", _BAILIAN, _APACHE, file,
        _media(_BAILIAN, _BAILIAN_COMMIT, file), f"commit {_BAILIAN_COMMIT}", size, sha256, told_by,
    )  # fmt: skip


def _vidur(kind: str, what: str, size: int | None, sha256: str | None) -> PublicSet:
    file = f"splitwise_{kind}.csv"
    return PublicSet(
        f"vidur-splitwise-{kind}", what, "vidur", _VIDUR,
        f"MIT, {_CC_BY}", file,
        _raw(_VIDUR, _VIDUR_COMMIT, f"data/processed_traces/{file}"),
        f"commit {_VIDUR_COMMIT}", size, sha256, OWN_COPY if sha256 else "",
    )  # fmt: skip


_ALL = (
    _azure_2023(
        "conv", "Azure 2023, conversations, 1 h, 19,366 requests", 719_188,
        "2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8", OWN_COPY,
    ),
    _azure_2023(
        "code", "Azure 2023, code completion, 1 h, 8,819 requests", None,
        "54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6", QUOTED,
    ),
    _azure_2024(
        "conv", "Azure 2024, conversations, 7 days, 27.3 million requests", 1_135_195_393,
        "a0cc9b969a9bbf0fd811802cbf4323edd3a209ace791e3799ad4f9207f213941",
    ),
    _azure_2024(
        "code", "Azure 2024, code completion, 7 days, 16.8 million requests", 691_989_454,
        "71de5c55cbc35f8f1ed0b6b7806b4cd1e9764b0058469725a6aac98023a1448f",
    ),
    PublicSet(
        "azure-2025-multimodal", "Azure 2025, text and images, 7 days, 1 million requests", "azure",
        f"{_AZURE_PAGE}/AzureLMMInferenceDataset2025.md", _CC_BY,
        "AzureLMMInferenceTrace_multimodal.csv.gz",
        # this form serves the file whether Git or Git LFS holds it
        f"{_AZURE}/raw/{_AZURE_COMMIT}/data/AzureLMMInferenceTrace_multimodal.csv.gz",
        f"commit {_AZURE_COMMIT}",
    ),
    _mooncake(
        "conversation", "Mooncake FAST'25, Kimi chats, 1 h, 12,031 requests", 3_029_533,
        "b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df", OWN_COPY,
    ),
    _mooncake(
        "toolagent", "Mooncake FAST'25, tools and agents, 1 h, 23,608 requests", None,
        "48a2db1a13d3bc05e6330140c64f604ba366df20d3c9e128b5c35a01c1fa5f71", QUOTED,
    ),
    _mooncake(
        "synthetic", "Mooncake FAST'25, made of public data sets, 17 min, 3,993 requests", None,
        "bd070915a98fc0ed264d7cfef2ce746002eb3076a695ec31ba2674c0111ec131", QUOTED,
    ),
    PublicSet(
        "mooncake-arxiv", "Mooncake of the technical report, 1 h, 23,608 requests", "mooncake",
        f"{_MOONCAKE}/tree/main/FAST25-release", _APACHE, "mooncake_trace.jsonl",
        _raw(_MOONCAKE, _ARXIV_COMMIT, "FAST25-release/arxiv-trace/mooncake_trace.jsonl"),
        f"commit {_ARXIV_COMMIT}", None,
        "b434f1816a707f4bac697235588184ebc374c9907cb981bb65fb0643471fe711", QUOTED,
    ),
    _burstgpt(
        1, "BurstGPT, days 0 to 60, 1.43 million requests", 52_283_111,
        "4bb3783693d0a435686fbfc885615d2349bd067239079fa4b749f2e679e12122", PUBLISHER,
    ),
    _burstgpt(
        2, "BurstGPT, the next 60 days, 3.86 million requests", 144_819_209,
        "44bf5942b03fca42c01a226a545ad3a750ec62688faecd67b6831c56a8928bf7", PUBLISHER,
    ),
    _burstgpt(
        3, "BurstGPT with sessions, 110 days, 5.34 million requests", 231_682_327,
        "2299986a07388aa303ec2c41d1131e756db650a39ed6ef9dfe7cc3d7f9a43b8f", QUOTED,
    ),
    _bailian(
        "traceA", "Qwen-Bailian, chats of consumers, 2 h", 56_354_493,
        "07cedc9ed8aff301994ac68ed4aede8123b7603673575eeba9dd677de663db17", QUOTED,
    ),
    _bailian(
        "traceB", "Qwen-Bailian, calls by businesses, 2 h", 96_209_982,
        "68e3f98e2d601d60d0abf4b89bc8a3654372abab7b1cde6373a13d0054379d59", QUOTED,
    ),
    _bailian(
        "coder", "Qwen-Bailian, a coding model, 2 h", 132_054_902,
        "3d74974cebb7bccb69b1ca6ea210a44d9a3033443c0271ed015327284dea1aff", PUBLISHER,
    ),
    _bailian(
        "thinking", "Qwen-Bailian, a reasoning model, 2 h", 27_901_454,
        "41ac36d9d1b54d084eeb6b05e9d142ba9d02f8bf79cfc9fff418d8ab7cdee906", PUBLISHER,
    ),
    PublicSet(
        "weka-claude-code", "Claude Code sessions with sub-agents, 393 sessions", "weka", _WEKA,
        _APACHE, "cc-traces-weka-062126.jsonl", f"{_WEKA}/resolve/{_WEKA_REVISION}/traces.jsonl",
        f"revision {_WEKA_REVISION}", 1_847_151_435,
        "29b6a19e751ff5230771519aab755f80a0f43a4ba9cf96b72d3a6a437ec99276", QUOTED,
    ),
    PublicSet(
        "kv-cache-tester", "Claude Code sessions, 739 files of one session each", "weka", _TESTER,
        _APACHE, "kv-cache-tester.jsonl", None, f"commit {_TESTER_COMMIT}",
        how=f"git clone {_TESTER} && git -C kv-cache-tester checkout {_TESTER_COMMIT} && "
        "for f in kv-cache-tester/traces/trace_*.json; do tr -d '\\n' < $f; echo; done > "
        "kv-cache-tester.jsonl",
    ),
    PublicSet(
        "servegen", "Alibaba ServeGen: rates and lengths of clients, to draw from", "servegen",
        _SERVEGEN, _APACHE, "ServeGen", None, f"commit {_SERVEGEN_COMMIT}",
        how=f"git clone {_SERVEGEN} && git -C ServeGen checkout {_SERVEGEN_COMMIT}; "
        "the clients are two files each in ServeGen/data",
    ),
    _vidur(
        "conv", "Azure 2023 conversations as Vidur writes them", 382_729,
        "439e4138b7e384f316de614c071f7162be05b8af0cef866f82faacd1b0472249",
    ),
    _vidur("code", "Azure 2023 code completion as Vidur writes it", None, None),
)  # fmt: skip
SETS: dict[str, PublicSet] = {one.name: one for one in _ALL}
