"""Reads a compiled program's text: which operations run, how often, and how many bytes they write.

Loops are multiplied out; a fusion is one operation."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_OPERATION = re.compile(r"\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][a-z\-0-9]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*)(?:e\dm\d\w*)?\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)"
    r"|branch_computations=\{([^}]*)\}"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_NAMED = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = .*? [a-z][a-z\-0-9]*\(")
_ROOT = "ROOT"
_INDEX = re.compile(r"index=(\d+)")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_BODY = re.compile(r"body=%?([\w.\-]+)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_SOURCE = re.compile(r'op_name="([^"]*)"')
_GROUPS = re.compile(r"replica_groups=(mesh\[.*?\] \{.*?\}|\[[\d,]+\]<=|\{.*?\}\}|\{\})")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_RENDEZVOUS = re.compile(r'_xla_host_transfer_rendezvous="([^"]*)"')
_SLICES = re.compile(r'_xla_megascale_target="\{([\d,]*)\}')
_BETWEEN = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_SOURCES_AND_RESULTS = {"all-gather-start", "collective-permute-start"}
_HANDLE = re.compile(r"u32\[\]")
"""What is no array of those, but how a TPU finds them again."""
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_FREE = {
    "parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all", "partition-id",
    "iota", "broadcast",
}  # fmt: skip
"""What moves nothing, or nothing that was there before."""
_MOVES = {"transpose", "copy", "reshape"}


@dataclass(frozen=True)
class Operation:
    """One operation of a program."""

    kind: str
    """The name that XLA has for it; of a call of a library, the function's."""
    bytes: int
    """Of what it writes, once."""
    times: int
    """How often it runs."""
    inner: frozenset[str]
    """The kinds that a fusion is made of; of all else its own."""
    source: str
    """Where in the traced program it comes from."""
    layout: str
    """The axes of a convolution: pixels, kernel, result; of all else nothing."""
    ordered: bool
    """Whether scatters in it, if there are any, write each place once, or add in a fixed order."""
    parts: frozenset[str]
    """Where in the traced program the parts of a fusion come from; of all else nothing."""
    read: int
    """Bytes of the largest array that a fusion reads; of all else 0."""
    wide: int
    """Bytes of the largest array in float32 that it writes."""

    @property
    def moves(self) -> bool:
        """Whether it does nothing but put values in another order."""
        return bool(self.inner & _MOVES) and self.inner <= _MOVES | _FREE


@dataclass(frozen=True)
class Exchange:
    """A collective."""

    kind: str
    sent: float
    """Bytes that each chip sends, all times that it runs, if every chip passes on what it gets to
    the next of its group."""
    beside: bool
    """Whether it is begun before, and ended after, other work."""
    slices: int = 1
    """Between how many slices of TPUs it goes, through the network of their machines."""


def exchanges(text: str, chips: int) -> list[Exchange]:
    """All collectives of the text of a program compiled for so many chips, each once."""
    computations, entry = _computations(text)
    found: dict[str, Exchange] = {}
    for place, line, times in _lines(computations, entry, 1):
        shape, kind, rest = _OPERATION.match(line).groups()
        plain = kind.removesuffix("-start")
        channel = _first(_CHANNEL, rest)
        if plain not in COLLECTIVES or channel in found:
            continue
        arrays = _arrays(shape)
        if kind in _SOURCES_AND_RESULTS:
            arrays = _arrays(_HANDLE.sub("", shape))
            arrays = arrays[len(arrays) // 2 :][: len(arrays) // 2]
        # TPUs send parts of what is in a chain in the steps of products.
        begun = "chain_id" in rest or place.startswith("async")
        if kind.endswith("-start"):
            begun = _meanwhile(computations[place], line)
        # TPUs write a reduce-scatter as an all-reduce of which a part is taken, in one operation.
        if place.startswith("all-reduce-scatter"):
            plain, arrays = "reduce-scatter", [size / _group(rest, chips) for size in arrays]
        sent = times * sum(arrays) * _ring(plain, _group(rest, chips))
        found[channel or f"alone {len(found)}"] = Exchange(plain, sent, begun)
    return [*found.values(), *_between_slices(computations, entry)]


def _between_slices(computations: dict[str, list[str]], entry: str) -> Iterator[Exchange]:
    """What machines exchange for their slices: a chip hands its part to its machine (`send`) and
    takes the result from it (`recv`)."""
    for place, line, times in _lines(computations, entry, 1):
        shape, kind, rest = _OPERATION.match(line).groups()
        between = _first(_BETWEEN, rest)
        if kind != "send" or not between:
            continue
        name, slices = _first(_RENDEZVOUS, rest), _first(_SLICES, rest).count(",") + 1
        lines = computations[place]
        arrives = next(one for one in lines if " recv(" in one and _first(_RENDEZVOUS, one) == name)
        plain, part = between.lower().replace("_", "-"), _arrays(shape)[0]
        result = part * {"all-gather": slices, "reduce-scatter": 1 / slices}.get(plain, 1)
        sent = times * result * _ring(plain, slices)
        yield Exchange(plain, sent, _meanwhile(lines, line, arrives), slices)


def _meanwhile(lines: list[str], start: str, ended: str | None = None) -> bool:
    """Whether anything is computed between a start and the end that goes with it, or with
    `ended`."""
    name = (ended or start).partition(" = ")[0].split()[-1]
    later = lines[lines.index(start) + 1 :]
    kinds = []
    for line in later:
        found = _OPERATION.match(line)
        if found is None:
            continue
        if found[2].endswith("-done") and re.search(rf"{re.escape(name)}\b", found[3]):
            break
        kinds.append(found[2])
    return any(kind not in _FREE and not kind.endswith(("-start", "-done")) for kind in kinds)


def _ring(kind: str, group: int) -> float:
    """What each chip of a ring sends, in sizes of the result."""
    if kind == "reduce-scatter":
        return group - 1
    if kind == "collective-permute":
        return 1
    return (2 if kind == "all-reduce" else 1) * (group - 1) / group


def _group(rest: str, chips: int) -> int:
    """How many chips exchange values with each other."""
    groups = _first(_GROUPS, rest)
    if groups.startswith("mesh"):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", groups))
        taken = re.findall(r"'(\w+)'", groups.partition("] ")[2])
        return math.prod(int(sizes[axis]) for axis in taken)
    if groups.startswith("["):
        return int(groups.strip("[]<=").split(",")[-1])
    if groups.startswith("{{"):
        return groups.partition("}")[0].count(",") + 1
    return chips


def _lines(
    computations: dict[str, list[str]], name: str, times: int
) -> Iterator[tuple[str, str, int]]:
    """Computation, text and number of runs of each operation, those of fusions too."""
    for line in computations[name]:
        found = _OPERATION.match(line)
        if found is None:
            continue
        yield name, line, times
        trips = _trips(computations, found[3]) if found[2] == "while" else 1
        for many in _CALLED.findall(found[3]):
            for inner in _names(many):
                yield from _lines(computations, inner, times * trips)


def operations(text: str) -> list[Operation]:
    """All that run, of the text of a compiled program, as `compiled.as_text()` gives it."""
    computations, entry = _computations(text)
    return list(_run(computations, entry, 1))


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation by its name, and the name of the first that runs."""
    computations: dict[str, list[str]] = {}
    entry = ""
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            computations[found[2]] = current = []
            entry = found[2] if found[1] else entry
        elif line.startswith(" ") and computations:
            current.append(line)
    return computations, entry


def _run(computations: dict[str, list[str]], name: str, times: int) -> Iterator[Operation]:
    for line in computations[name]:
        found = _OPERATION.match(line)
        if found is None or found[2] in _FREE:
            continue
        shape, kind, rest = found.groups()
        called = [one for many in _CALLED.findall(rest) for one in _names(many)]
        if kind in ("while", "call", "conditional", "async-start"):
            trips = _trips(computations, rest) if kind == "while" else 1
            for inner in called:
                yield from _run(computations, inner, times * trips)
            continue
        if kind.endswith("-done"):
            continue
        inside = computations[called[0]] if kind == "fusion" else [line]
        inner = {_OPERATION.match(one)[2] for one in inside}
        scatters = [one for one in inside if "scatter(" in one]
        ordered = all("unique_indices=true" in one for one in scatters)
        name = _first(_TARGET, rest) if kind == "custom-call" else kind
        source, layout = _first(_SOURCE, rest), _axes(rest)
        parts, read = frozenset(), 0
        if kind == "fusion":
            parts = frozenset(_first(_SOURCE, one) for one in inside)
            given = [_OPERATION.match(one) for one in inside]
            read = max((_bytes(one[1]) for one in given if one[2] == "parameter"), default=0)
        wide = max((_bytes(one) for one in re.findall(r"f32\[[\d,]*\]", shape)), default=0)
        yield Operation(
            name, _bytes(shape), times, frozenset(inner), source, layout, ordered, parts, read, wide
        )


def _trips(computations: dict[str, list[str]], loop: str) -> int:
    """How often a loop runs, as the compiler says; or as its text does, if it counts from zero
    while it is below a constant, as loops do in which TPUs send parts of a product's factors.

    Raises:
        ValueError: of other loops.
    """
    if known := _TRIPS.search(loop):
        return int(known[1])
    condition, body = (_definitions(computations[_first(of, loop)]) for of in (_CONDITION, _BODY))
    unknown = ValueError(f"nothing says how often this loop runs: {loop[:200]}")
    if condition[_ROOT][0] != "compare" or "direction=LT" not in condition[_ROOT][1]:
        raise unknown
    try:
        counter, limit = _operands(condition[_ROOT])
        place = int(_first(_INDEX, condition[counter][1]))
        added = [body[name] for name in _operands(body[_operands(body[_ROOT])[place]])]
        (step,) = (_constant(one) for one in added if one[0] == "constant")
        return math.ceil(_constant(condition[limit]) / step)
    except (KeyError, IndexError, ValueError):
        raise unknown from None


def _definitions(lines: list[str]) -> dict[str, tuple[str, str]]:
    """Kind, and operands with all that follows, of what has each name; of the result too."""
    found = {}
    for line in lines:
        if named := _NAMED.match(line):
            found[named[2]] = _OPERATION.match(line).groups()[1:]
            if named[1]:
                found[_ROOT] = found[named[2]]
    return found


def _operands(operation: tuple[str, str]) -> list[str]:
    return re.findall(r"%([\w.\-]+)", operation[1].partition(")")[0])


def _constant(operation: tuple[str, str]) -> int:
    return int(operation[1].partition(")")[0])


def _names(called: tuple[str, str]) -> list[str]:
    one, many = called
    return [one] if one else [name.strip().removeprefix("%") for name in many.split(",")]


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


def _axes(rest: str) -> str:
    return _first(re.compile(r"dim_labels=(\S+?)[, ]"), rest)


def _bytes(shape: str) -> int:
    """Of all arrays in a type's text."""
    return sum(_arrays(shape))


def _arrays(shape: str) -> list[int]:
    """Bytes of each array in a type's text."""
    sizes = []
    for kind, sides in _ARRAY.findall(shape):
        bits = re.search(r"\d+", kind)
        size = math.prod(int(side) for side in sides.split(",") if side)
        sizes.append(size * (int(bits[0]) if bits else 8) // 8)
    return sizes
