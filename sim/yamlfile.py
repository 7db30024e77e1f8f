"""One YAML file as plain data, with the line and column of every key and value.

The one rule: a file means what it seems to mean. What YAML 1.1 would read as something else
(`no`, `12:30`, `017`), twice given keys, aliases, tags and merge keys are findings, not values.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from .errors import InputError, shown
from .marks import Document, Finding, Mark
from .trace.naming import said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .node import Place

MAX_BYTES = 2**20
MAX_DEPTH = 20
MAX_NODES = 20_000
"""Keys and values; what is less than a second to read."""

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)(?:[eE][-+]?[0-9]+)?")
_EXPONENT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+")
"""A number to YAML 1.2 and everybody else, a word to PyYAML."""
_NOT_FINITE = {".inf": "inf", ".nan": "nan"}


def read_document(path: Path, name: str) -> Document:
    """The YAML file *path*, called *name* in messages; what can be mended stands in `findings`.

    Raises `InputError` when the file cannot be read as one YAML map at all.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would wait for ever
            raise OSError("not a regular file; save the scenario in one")
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{said(name)}: no such file; it is sought from {Path.cwd()}") from None
    except OSError as error:
        what = "a directory; name a file in it" if path.is_dir() else error.strerror or error
        raise InputError(f"{said(name)}: {what}") from None
    except ValueError:  # a NUL in the path
        raise InputError(f"{shown(name)}: not a file name") from None
    if len(raw) > MAX_BYTES:
        raise InputError(
            f"{said(name)}: larger than 1 MiB; a scenario names its trace, it holds none"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        what = f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise InputError(f"{_at(said(name), before)}: {what}") from None
    return parse_document(text, name)


def parse_document(text: str, name: str) -> Document:
    """As `read_document`, of a text."""
    document = Document()
    node = _compose(text, name, document)
    if not isinstance(node, yaml.MappingNode):
        what = "empty" if node is None else "not a map"
        raise InputError(f"{said(name)}:1:1: {what}; a scenario is a map of keys to values")
    document.data = _Walk(document, name).value(node, ())
    return document


def parse_value(text: str, name: str, place: Place) -> Document:
    """A lone value, as it stands after `--set PATH=`, at *place* of a document without the rest."""
    document = Document()
    data = None
    try:
        node = _compose(text, name, document)
        if node is not None:
            data = _Walk(document, name).value(node, place)
    except InputError as error:
        document.findings.append(Finding(Mark(name), str(error).removeprefix(name)))
        document.bad.add(place)
    # the line and column of a word on the command line help nobody
    texts = [re.sub(r"^:[0-9]+:[0-9]+: ", "", finding.text) for finding in document.findings]
    document.findings = [Finding(Mark(name), text) for text in texts]
    around = [place[:i] for i in range(len(place) + 1)]
    document.values = dict.fromkeys([*around, *document.values], Mark(name))
    document.keys = dict.fromkeys([*around[1:], *document.keys], Mark(name))
    for step in reversed(place):
        data = {step: data}
    document.data = cast("dict[str, Any]", data)
    return document


def _at(name: str, before: str) -> Mark:
    """The mark of what follows the text *before*."""
    return Mark(name, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def _compose(text: str, name: str, document: Document) -> yaml.Node | None:
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        what = f"character U+{ord(text[error.position]):04X} has no place in YAML; remove it"
        raise InputError(f"{_at(said(name), text[: error.position])}: {what}") from None
    except yaml.MarkedYAMLError as error:
        raise InputError(_syntax(error, said(name))) from None
    except RecursionError:
        raise InputError(f"{said(name)}:1:1: nested too deeply") from None
    finally:
        if loader is not None:
            loader.dispose()
    document.findings += [Finding(_mark(name, m), what) for m, what in loader.refused]
    return node


def _syntax(error: yaml.MarkedYAMLError, name: str) -> str:
    place = error.problem_mark or error.context_mark
    mark = _mark(name, place) if place else Mark(name, 1, 1)
    problem = (error.problem or "not YAML").replace("\n", " ")
    if "but found another document" in problem:
        return f"{mark}: a second document; a scenario file holds one, remove what follows `---`"
    hint = f" {error.context}" if error.context else ""
    if "'\\t'" in problem:
        hint = "; indent with spaces, not with tabs"
    if problem.endswith("a scenario needs less"):
        return f"{mark}: {problem}"
    return f"{mark}: YAML syntax: {problem}{hint}"


def _mark(name: str, mark: Any) -> Mark:
    """From a PyYAML mark, which counts from 0."""
    return Mark(name, mark.line + 1, mark.column + 1)


class _Loader(yaml.SafeLoader):
    """Composes nodes only, and notes aliases, anchors and tags on the way."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.refused: list[tuple[Any, str]] = []
        self.depth = 0
        self.nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            self.refused.append((event.start_mark, "aliases are not allowed; write the value out"))
            mark: Any = event.start_mark
            return yaml.ScalarNode("alias", "", mark, mark)
        if event.anchor is not None:
            what = f"anchors are not allowed; remove {shown('&' + event.anchor)}"
            self.refused.append((event.start_mark, what))
            event.anchor = None
        if event.tag is not None:
            what = f"tags are not allowed; remove {shown(event.tag)}"
            self.refused.append((event.start_mark, what))
            event.tag = None
            event.implicit = (True, False)  # read on as if the tag were not there
        self.depth += 1
        self.nodes += 1
        if self.nodes > MAX_NODES:
            what = f"more than {MAX_NODES} keys and values; a scenario needs less"
            raise yaml.MarkedYAMLError(problem=what, problem_mark=event.start_mark)
        if self.depth > MAX_DEPTH:
            what = f"nested more than {MAX_DEPTH} deep; a scenario needs less"
            raise yaml.MarkedYAMLError(problem=what, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Walk:
    """From nodes to plain data, filling the marks and findings of a document."""

    def __init__(self, document: Document, name: str) -> None:
        self.document = document
        self.name = name

    def value(self, node: yaml.Node, place: Place) -> Any:
        """The data of *node*, whose place is *place*."""
        self.document.values[place] = _mark(self.name, node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return {key: self.value(item, (*place, key)) for key, item in self.entries(node, place)}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, i)) for i, item in enumerate(node.value)]
        return self.scalar(cast("yaml.ScalarNode", node), place)

    def entries(self, node: yaml.MappingNode, place: Place) -> Iterator[tuple[str, yaml.Node]]:
        """The entries of a map whose keys are words, each key once."""
        seen: dict[str, int] = {}
        for key, item in node.value:
            mark = _mark(self.name, key.start_mark)
            if (text := self.key(key, mark)) is None:
                continue
            if text in seen:
                what = f"duplicate key {shown(text)} (first in line {seen[text]}); keep one"
                self.find(mark, what)
            else:
                seen[text] = mark.line
                self.document.keys[(*place, text)] = mark
                yield text, item

    def key(self, node: yaml.Node, mark: Mark) -> str | None:
        """The text of a key, or None after a finding."""
        if not isinstance(node, yaml.ScalarNode):
            self.find(mark, "a key is a word, not a list or map")
        elif node.tag.endswith(":merge"):
            self.find(mark, "merge keys are not allowed; use `extends:`")
        elif not node.tag.endswith(":str"):
            kind = "nothing" if node.tag.endswith(":null") else node.tag.rpartition(":")[2]
            self.find(mark, f"a key is a word, and YAML reads {shown(node.value)} as {kind}")
        elif not node.value.isprintable():
            self.find(mark, f"key {shown(node.value)} holds control characters; remove them")
        else:
            return str(node.value)
        return None

    def scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        """A word, number, true, false or None; for a trap its text, after a finding."""
        text = str(node.value)
        kind = node.tag.rpartition(":")[2]
        if kind == "alias":
            self.document.bad.add(place)
        elif not text.isprintable():
            self.trap(place, f"{shown(text)} holds control characters or line ends; remove them")
        elif kind == "null":
            return None
        elif kind == "bool":
            if text.lower() in ("true", "false"):
                return text.lower() == "true"
            self.trap(place, f"YAML reads {text} as a boolean; write true or false, or '{text}'")
        elif kind == "int":
            if _INT.fullmatch(text) and len(text) <= 40:
                return int(text.replace("_", ""))
            self.trap(place, f"YAML reads {shown(text)} as another number; write a plain decimal")
        elif kind == "float" or (
            kind == "str" and node.style is None and _EXPONENT.fullmatch(text)
        ):
            return self.float(text, place)
        return text

    def float(self, text: str, place: Place) -> Any:
        """A float, as YAML 1.2 reads it: with 1e-3, and without base-60 numbers such as 1:30.5."""
        plain = _NOT_FINITE.get(text.lower().lstrip("+-"))
        if plain is None and not _FLOAT.fullmatch(text):
            self.trap(place, f"YAML reads {shown(text)} as another number; write a plain decimal")
            return text
        return float(plain or text.replace("_", ""))

    def trap(self, place: Place, what: str) -> None:
        """A finding about the value at *place*, which nothing else will complain about."""
        self.document.bad.add(place)
        path = ".".join(map(str, place))
        self.find(self.document.values[place], f"{path}: {what}")

    def find(self, mark: Mark, what: str) -> None:
        """A finding at *mark*."""
        self.document.findings.append(Finding(mark, what))
