"""A pickle machine that can build containers, numbers and text, and calls only what it is given.

Nothing is imported, and no attribute of anything is looked up or set: what a pickle names is
either one of a few functions that the caller supplies, or a `Placeholder` that keeps the name.
"""

import io
import pickletools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ldm_jax.core.reading import FileFormatError, shown

MAX_BYTES = 32 * 2**20
MAX_OPCODES = 2_000_000
"""A file of ten thousand tensors, with the state of its optimizer, has about a million."""
MAX_VALUES = 2_000_000
MAX_DEPTH = 64

ADVICE = (
    "if you trust who made the file, open it with torch and save the tensors alone: "
    "torch.save({'state_dict': model.state_dict()}, ...) or safetensors"
)

# Protocols 2 to 5 as Python's pickler writes them, less what can only serve an attack.
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NAMES = {"GLOBAL", "STACK_GLOBAL"}
_MEMO = {"BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"}
_FILL = {"APPEND", "APPENDS", "SETITEM", "SETITEMS"}
_CALLS = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "BINPERSID"}
_MARKS = {"PROTO", "FRAME", "MARK", "TUPLE", "STOP"}
_ALLOWED = (
    _VALUES.keys() | _LITERALS | _EMPTY.keys() | _TUPLES.keys()
    | _NAMES | _MEMO | _FILL | _CALLS | _MARKS
)  # fmt: skip


class Placeholder:
    """A class, function or object of a library that is not asked: its name, nothing behind it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Placeholder({shown(self.name)})"


@runtime_checkable
class Unfinished(Protocol):
    """What a function of a `Vocabulary` makes, where the pickle gives it a state afterwards."""

    def build(self, state: Any) -> None:
        """Takes the state, of any kind; raises FileFormatError for what it cannot be."""


class Record(dict[str, Any]):
    """The attributes of an object of a library that is not asked."""


# Finding them in a dict takes bounded time. For nested tuples it does not, nor for large numbers,
# which can be chosen to have the same hash.
_KEYS = (str, bytes, int, bool, type(None), Placeholder)
_LARGEST_KEY = 2**31


@dataclass(frozen=True)
class Vocabulary:
    """What the names in a pickle, "module.name", mean; any other is refused."""

    functions: Mapping[str, Callable[[tuple], Any]]
    """Called with the tuple of arguments that the pickle gives, of any number and kind."""
    constants: Collection[str]
    """May be named and handed on, not called."""
    records: Collection[str]
    """Classes of which objects become a `Record` of their attributes."""
    is_foreign: Callable[[str], bool]
    """Whether a name may stand as a `Placeholder`: what it would make is dropped."""
    persistent: Callable[[Any], Any]
    """What a persistent id stands for."""


def unpickle(path: Path, data: bytes, vocabulary: Vocabulary, max_bytes: int = MAX_BYTES) -> Any:
    """The value that the pickle `data` describes: dicts, lists, tuples, text, bytes, numbers,
    None, `Placeholder`s, `Record`s, and what the functions of `vocabulary` make.

    The value is a tree of bounded size and depth, so that walking it ends.

    Raises:
        FileFormatError: names what is not allowed, or says how the pickle is damaged.
    """
    if len(data) > max_bytes:
        raise FileFormatError(
            path, f"its pickle has {len(data)} bytes, more than the {max_bytes} of any model"
        )
    value, end = unpickle_first(path, data, vocabulary)
    if end < len(data):
        raise FileFormatError(path, "its pickle is damaged: something is left over at its end")
    return value


def unpickle_first(path: Path, data: bytes, vocabulary: Vocabulary) -> tuple[Any, int]:
    """The value of the pickle that `data` begins with, as `unpickle`, and where it ends."""
    stream = io.BytesIO(data)
    value = _Machine(path, vocabulary).run(stream)
    _check_tree(path, value)
    return value, stream.tell()


@dataclass
class _Machine:
    path: Path
    vocabulary: Vocabulary
    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    """The stacks below each mark."""
    memo: dict[int, Any] = field(default_factory=dict)

    def error(self, problem: str) -> FileFormatError:
        return FileFormatError(self.path, problem)

    def refuse(self, what: str) -> FileFormatError:
        return self.error(f"its pickle {what}, which is not allowed; {ADVICE}")

    def run(self, stream: io.BytesIO) -> Any:
        for _ in range(MAX_OPCODES):
            name, argument = self.read(stream)
            if name == "STOP":
                value = self.pop()
                if self.stack or self.below:
                    raise self.error("its pickle is damaged: something is left over at its end")
                return value
            self.step(name, argument)
        raise self.error(f"its pickle has more than {MAX_OPCODES} instructions")

    def read(self, stream: io.BytesIO) -> tuple[str, Any]:
        code = stream.read(1)
        if not code:
            raise self.error("its pickle is truncated")
        opcode = pickletools.code2op.get(code.decode("latin-1"))
        if opcode is None:
            raise self.error(f"its pickle is damaged: {code!r} is no instruction")
        if opcode.name not in _ALLOWED:
            raise self.refuse(f"has the instruction {opcode.name}")
        if opcode.name == "GLOBAL":
            return opcode.name, self.read_lines(stream, 2)
        try:
            return opcode.name, opcode.arg.reader(stream) if opcode.arg else None
        except ValueError as error:
            raise self.error(f"its pickle is damaged or truncated at {opcode.name}") from error

    def read_lines(self, stream: io.BytesIO, count: int) -> list[str]:
        """Lines of text as they stand; pickletools' own reader would undo backslashes."""
        lines = [stream.readline() for _ in range(count)]
        if not all(line.endswith(b"\n") for line in lines):
            raise self.error("its pickle is truncated at GLOBAL")
        return [line[:-1].decode("utf-8", "backslashreplace") for line in lines]

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(_VALUES[name])
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(self.pops(_TUPLES[name])))
        elif name in _NAMES:
            self.stack.append(self.find(*(self.pops(2) if argument is None else argument)))
        elif name in _MEMO:
            self.remember(name, argument)
        elif name in _FILL:
            self.fill(name)
        elif name in _CALLS:
            self.call(name)
        elif name == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif name == "TUPLE":
            values = tuple(self.pop_mark())
            self.stack.append(values)
        elif name == "PROTO" and not 2 <= argument <= 5:
            raise self.error(f"its pickle has protocol {argument}; 2 to 5 are read")

    def pop(self) -> Any:
        return self.pops(1)[0]

    def pops(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise self.error("its pickle is damaged: an instruction lacks its operands")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def pop_mark(self) -> list[Any]:
        if not self.below:
            raise self.error("its pickle is damaged: an instruction lacks its mark")
        values, self.stack = self.stack, self.below.pop()
        return values

    def top(self) -> Any:
        value = self.pop()
        self.stack.append(value)
        return value

    def remember(self, name: str, argument: int | None) -> None:
        if name in ("BINGET", "LONG_BINGET"):
            if argument not in self.memo:
                raise self.error(f"its pickle is damaged: it has not memorized {argument}")
            self.stack.append(self.memo[argument])
        else:
            self.memo[len(self.memo) if argument is None else argument] = self.top()

    def find(self, module: Any, name: Any) -> Placeholder:
        """A name that is known, and nothing more than the name."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise self.error("its pickle is damaged: a name is not text")
        full = f"{module}.{name}"
        words = self.vocabulary
        known = (words.functions, words.constants, words.records)
        if any(full in names for names in known) or words.is_foreign(full):
            return Placeholder(full)
        raise self.refuse(f"asks for {shown(full)}")

    def foreign(self, value: Any) -> bool:
        return isinstance(value, Placeholder) and self.vocabulary.is_foreign(value.name)

    def fill(self, name: str) -> None:
        values = self.pop_mark() if name.endswith("S") else self.pops(1 + (name == "SETITEM"))
        into = self.top()
        if self.foreign(into):
            return
        if name.startswith("APPEND") and type(into) is list:
            into.extend(values)
        elif name.startswith("SETITEM") and type(into) is dict and len(values) % 2 == 0:
            for key, value in zip(values[::2], values[1::2], strict=True):
                self.insert(into, key, value)
        else:
            raise self.error(f"its pickle is damaged: {name} does not fit what is there")

    def insert(self, into: dict[Any, Any], key: Any, value: Any) -> None:
        if type(key) not in _KEYS or (type(key) is int and abs(key) > _LARGEST_KEY):
            raise self.refuse(f"has a {type(key).__name__} as the key of a dict")
        if key in into:
            raise self.error(f"its pickle gives the key {shown(key)} twice")
        into[key] = value

    def call(self, name: str) -> None:
        if name == "BINPERSID":
            self.stack.append(self.vocabulary.persistent(self.pop()))
            return
        if name == "BUILD":
            state, made = self.pop(), self.top()
            if type(made) is Record and type(state) is dict:
                made.update(state)
                return
            if isinstance(made, Unfinished):
                made.build(state)
                return
            # Attributes, as the `_metadata` of a state dict: versions of modules, not weights.
            if not (self.foreign(made) or (type(made) is dict and type(state) is dict)):
                raise self.refuse(f"sets the state of a {type(made).__name__}")
            return
        if name == "NEWOBJ_EX" and type(self.pop()) is not dict:
            raise self.error("its pickle is damaged: named arguments are not a dict")
        function, arguments = self.pops(2)
        if not isinstance(function, Placeholder) or type(arguments) is not tuple:
            raise self.refuse(f"calls a {type(function).__name__}")
        if self.vocabulary.is_foreign(function.name):
            self.stack.append(Placeholder(function.name))
        elif name == "REDUCE" and function.name in self.vocabulary.functions:
            self.stack.append(self.vocabulary.functions[function.name](arguments))
        elif name == "NEWOBJ" and function.name in self.vocabulary.records and not arguments:
            self.stack.append(Record())
        else:
            raise self.refuse(f"makes an object of {shown(function.name)}")


def _check_tree(path: Path, value: Any) -> None:
    """Refuses what contains itself, or shares its parts so that walking it would hardly end."""
    pending, values = [(value, 0)], 0
    while pending:
        inner, depth = pending.pop()
        values += 1
        if depth > MAX_DEPTH or values + len(pending) > MAX_VALUES:
            raise FileFormatError(
                path,
                f"its pickle is nested more than {MAX_DEPTH} levels deep or has more than "
                f"{MAX_VALUES} values, as no model has",
            )
        if isinstance(inner, dict):
            inner = inner.values()
        elif not isinstance(inner, list | tuple):
            continue
        pending.extend((member, depth + 1) for member in inner)
