"""Single machine instructions that Python has no words for: 64 bytes at once at any offset, and the bits of a number.

Each function below gets the types of its arguments; numba puts in its place what `emit` writes. Arrays are contiguous
uint8; offsets are not checked. Kernels call them by the names at the end.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_BYTES = ir.VectorType(ir.IntType(8), 64)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), _BYTES.as_pointer())


def _differing_bytes(typing: Any, first: Any, i: Any, second: Any, j: Any) -> Any:
    """Bit b of the uint64 is one where `first[i + b] != second[j + b]`, b from 0 to 63."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sides = [
            builder.load(_pointer(context, builder, signature.args[k], arguments[k], arguments[k + 1]), align=1)
            for k in (0, 2)
        ]
        return builder.bitcast(builder.icmp_unsigned("!=", *sides), ir.IntType(64))

    return types.uint64(first, types.int64, second, types.int64), emit


def _xor_bytes(typing: Any, array: Any, target: Any, source: Any) -> Any:
    """`array[target + b] ^= array[source + b]`, b from 0 to 63, all read before any is written."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        into, other = (_pointer(context, builder, signature.args[0], arguments[0], o) for o in arguments[1:])
        builder.store(builder.xor(builder.load(into, align=1), builder.load(other, align=1)), into, align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), emit


def _popcount(typing: Any, word: Any) -> Any:
    """Number of ones in a uint64."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), emit


def _trailing_zeros(typing: Any, word: Any) -> Any:
    """Place of the lowest one in a uint64 that is not 0."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), emit


def _multiply_add(typing: Any, first: Any, second: Any, third: Any) -> Any:
    """`first * second + third` in float32, rounded once."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), emit


# `typing` is numba's: kernels call these with the other arguments.
differing_bytes: Any = intrinsic(_differing_bytes)
xor_bytes: Any = intrinsic(_xor_bytes)
popcount: Any = intrinsic(_popcount)
trailing_zeros: Any = intrinsic(_trailing_zeros)
multiply_add: Any = intrinsic(_multiply_add)
