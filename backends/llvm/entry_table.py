"""The table by which native code knows a graph's entry.

An array of 64-bit words. It begins with a `Header`, and has three lists of instructions, each (operation, length in words,
operands ...): checks, which come before everything else and change nothing; what makes memory for the outputs; and what is
done after the run. `entry` writes it, `entry_code` reads it.

The frame of a call holds, for N inputs and M outputs: the addresses of the inputs' memory, their tensors, their arrays,
their first and last bytes (N words each), the addresses of the outputs' memory, the arrays made for them (M words each),
and the numbers that are inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

ANY = -(1 << 63)
"""Stands for any stride."""

FRAME_ON_STACK = 384
"""Words of the largest frame that lies on the stack: below a page, so that no system has to have it probed."""

THREAD_LOCALS = 4
"""How many thread-local objects the code can keep track of."""


class Header(IntEnum):
    """The first words of a table."""

    ARGUMENTS = 0
    """How many are given by position."""
    KEYWORDS = auto()
    """A tuple of the names of those that come then; 0 for none."""
    INPUTS = auto()
    OUTPUTS = auto()
    FRAME = auto()
    """Words of the frame."""
    CHECKS = auto()
    """Where the checks begin, in words from the start of the table; so for the others."""
    OUTPUT_LIST = auto()
    AFTERWARDS = auto()
    RESULT = auto()
    """Where the leaves of the result begin: three words each, (Leaf, reference, node)."""
    LEAVES = auto()
    RESULT_KIND = auto()
    FINISH = auto()
    """The function that makes the result of a list of leaves, for Result.FINISHED."""
    RUN = auto()
    CONSTANTS = auto()
    WORKSPACE = auto()
    ARENA_BYTES = auto()
    RELEASES = auto()
    """Whether other threads may run meanwhile."""
    FAILED = auto()
    """The function that is called with what a program returns, unless it is 0, and raises the error."""
    CALLS = auto()
    """How many calls have passed the checks; counted by the code."""


class Check(IntEnum):
    """What must be as it was. The operands stand behind each."""

    END = 0
    THREAD = auto()  # n, n times (number of the thread-local object, attribute, value, value if the thread has set none)
    CELL = auto()  # cell, value or 0
    ITEM = auto()  # dict, key, value or 0
    DICT = auto()  # dict, n, n pairs of key and value; a value of 0 may be anything
    LIST = auto()  # list, n, n values
    SLOT = auto()  # object, offset, value or 0
    FUNCTION = auto()  # function, code, defaults, keyword defaults
    TYPE = auto()  # object, type
    VERSION = auto()  # type, version tag
    NAMESPACE = auto()  # object, dict
    VALUE = auto()  # argument, value
    TENSOR = auto()  # see Tensor
    ARRAY = auto()  # argument, input: nothing is checked
    SAME = auto()  # argument, argument, whether they are the same object
    NUMBER = auto()  # dict, key, input, place in the frame
    APART = auto()  # input, n, n inputs
    HOLDER = auto()  # tensor: it must have metadata
    NO_GRAD = auto()  # tensor
    ADDRESS = auto()  # address, input, whose memory is there: nothing is checked


class Tensor(IntEnum):
    """Operands of Check.TENSOR, by their place behind the length."""

    ARGUMENT = 2  # its number, or -1
    OBJECT = auto()  # the very tensor, or 0
    TYPE = auto()
    REQUIRES_GRAD = auto()  # True or False; 0 where neither that nor the history matters
    ADDRESS = auto()  # of the array's memory, or 0
    DTYPE = auto()
    FLAGS = auto()  # that must be set
    INPUT = auto()  # its number, or -1
    COUNTED = auto()  # whether there must be a version counter
    LOW = auto()  # first byte, from the address of the array
    HIGH = auto()  # behind the last byte
    NDIM = auto()
    DIMS = auto()  # shape, then strides in bytes


class Output(IntEnum):
    """Where an output goes."""

    END = 0
    FRESH = auto()  # output, dtype, bytes, ndim, shape
    DONATED = auto()  # output, input
    GRADIENT = auto()  # output, dtype, bytes, ndim, shape..., tensor: into the memory of its old .grad if nobody has that


class After(IntEnum):
    """What is done after the run."""

    END = 0
    COUNT = auto()  # input: its version counter grows
    SET_GRAD = auto()  # tensor, output
    CLEAR_GRAD = auto()  # tensor


class Result(IntEnum):
    """What the leaves are put into."""

    ONE = 0
    TUPLE = auto()
    LIST = auto()
    FINISHED = auto()


class Leaf(IntEnum):
    """What a leaf of the result is, and refers to by its number or address."""

    OUTPUT = 0
    ARRAY = auto()
    ARGUMENT = auto()
    OBJECT = auto()


@dataclass(frozen=True)
class Slots:
    """Offsets of the slots of tensors and of what hangs on them, and how many words some of these objects have."""

    data: int
    node: int
    metadata: int
    requires_grad: int
    grad: int
    version: int
    view: int
    count: int
    base: int
    tracked: int
    seen: int
    index: int
    inference: int
    parent: int
    step: int
    detached: int
    node_edges: int
    node_sequence: int
    node_saved: int
    node_out: int
    node_types: int
    node_attrs: int
    node_code: int
    node_last: int
    node_plan: int
    node_watched: int
    plan_native: int
    compiled_how: int
    compiled_kept: int
    compiled_saved: int
    compiled_versions: int
    compiled_outputs: int
    saved_tensor: int
    saved_version: int
    saved_count: int
    saved_unpack: int
    enabled: int
    metadata_words: int
    counter_words: int
    view_words: int
    saved_words: int
