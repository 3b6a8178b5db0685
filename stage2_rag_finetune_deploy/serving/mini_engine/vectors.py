"""Sixteen numbers at once: the few vector operations that the attention kernel is built from, as code for LLVM.

Numba compiles loops and leaves it to LLVM to find the vectors in them. In attention it did not find them: a tile of 16
keys took 1.2 us, written with these 0.2 (NOTES.md). A `Lanes` object adds instructions to a function that Numba is
compiling; nothing here runs at the time of a request.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

TILE = 16  # float32 numbers in a register of 512 bits
FLOATS, INTS = ir.VectorType(ir.FloatType(), TILE), ir.VectorType(ir.IntType(32), TILE)
HALVES = ir.VectorType(ir.IntType(16), TILE)
EXP_TERMS = (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0)  # Taylor of e^x, highest power first


def number(value: int) -> ir.Constant:
    """A constant index."""
    return ir.Constant(ir.IntType(64), value)


def same(value: float) -> ir.Constant:
    """A constant in all lanes."""
    return ir.Constant(FLOATS, [value] * TILE)


class Lanes:
    """Writes vector instructions into the function at hand."""

    def __init__(self, context: Any, builder: ir.IRBuilder) -> None:
        self.context, self.builder = context, builder

    def index(self, value: Any, kind: Any) -> Any:
        """A whole number as an index; anything else as it is."""
        return self.context.cast(self.builder, value, kind, types.intp) if isinstance(kind, types.Integer) else value

    def pointer(self, array: Any, kind: Any, indices: Sequence[Any]) -> Any:
        """Address of an array's element."""
        made = self.context.make_array(kind)(self.context, self.builder, array)
        return cgutils.get_item_pointer(self.context, self.builder, kind, made, list(indices), wraparound=False)

    def load(self, pointer: Any, stored: Any) -> Any:
        """16 numbers that lie side by side, float32 or bfloat16 (the upper half of a float32), as float32."""
        if stored == types.float32:
            return self.builder.load(self.builder.bitcast(pointer, FLOATS.as_pointer()), align=4)
        halves = self.builder.load(self.builder.bitcast(pointer, HALVES.as_pointer()), align=2)
        wide = self.builder.shl(self.builder.zext(halves, INTS), ir.Constant(INTS, [16] * TILE))
        return self.builder.bitcast(wide, FLOATS)

    def store(self, vector: Any, pointer: Any) -> None:
        """16 float32 numbers to memory."""
        self.builder.store(vector, self.builder.bitcast(pointer, FLOATS.as_pointer()), align=4)

    def everywhere(self, value: Any) -> Any:
        """One number in all lanes."""
        kind = FLOATS if value.type == ir.FloatType() else INTS
        empty = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(first, empty, ir.Constant(INTS, [0] * TILE))

    def lane(self, vector: Any, place: int) -> Any:
        """One lane's number in all lanes."""
        return self.builder.shuffle_vector(vector, vector, ir.Constant(INTS, [place] * TILE))

    def call(self, name: str, *arguments: Any, result: Any = FLOATS) -> Any:
        """One of LLVM's own functions."""
        kind = ir.FunctionType(result, [each.type for each in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), arguments)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c"""
        return self.call("llvm.fma.v16f32", a, b, c)

    def larger(self, a: Any, b: Any) -> Any:
        """The larger one in each lane; a and b may be single numbers."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def largest(self, vector: Any) -> Any:
        """The largest of 16 numbers."""
        return self.call("llvm.vector.reduce.fmax.v16f32", vector, result=ir.FloatType())

    def total(self, vectors: Sequence[Any]) -> Any:
        """Vectors added up lane by lane, two by two: a chain of additions would wait for each."""
        vectors = list(vectors)
        while len(vectors) > 1:
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [self.builder.fadd(a, b) for a, b in pairs]
        return vectors[0]

    def sum(self, vector: Any) -> Any:
        """The sum of 16 numbers, by halves."""
        for step in (8, 4, 2, 1):
            turned = ir.Constant(INTS, [(lane + step) % TILE for lane in range(TILE)])
            vector = self.builder.fadd(vector, self.builder.shuffle_vector(vector, vector, turned))
        return self.builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    def exp(self, x: Any) -> Any:
        """e^x for x up to 0, to 2e-7 of its value (below -87: about 1e-38): 2^whole by the exponent's bits, the rest,
        at most half a power of two, by a polynomial."""
        scaled = self.builder.fmul(self.larger(x, same(-87.0)), same(1.4426950408889634))
        whole = self.call("llvm.rint.v16f32", scaled)
        rest = self.builder.fmul(self.builder.fsub(scaled, whole), same(0.6931471805599453))
        power = same(EXP_TERMS[0])
        for term in EXP_TERMS[1:]:
            power = self.fma(power, rest, same(term))
        bits = self.builder.add(self.builder.fptosi(whole, INTS), ir.Constant(INTS, [127] * TILE))
        two_to = self.builder.bitcast(self.builder.shl(bits, ir.Constant(INTS, [23] * TILE)), FLOATS)
        return self.builder.fmul(power, two_to)
