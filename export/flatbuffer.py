"""TFLite files piece by piece, without TensorFlow: tensors, constants and operators of subgraphs, and the signature.

The names of operators and of their options are the schema's own, as ai_edge_litert's `schema_py_generated` has them;
that module is plain Python over flatbuffers and numpy, and loads no runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
SIGNATURE = "serving_default"

ALIGNMENT = 16
"""Bytes; what TFLite's kernels expect of constants, where the schema's own writer would align them to one."""

TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.float16): schema.TensorType.FLOAT16,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.bool_): schema.TensorType.BOOL,
}


@dataclass(frozen=True, eq=False)
class Grid:
    """Integer i stands for (i - zero_point) * scale. scales: (1,), or one for each index of axis."""

    scales: NDArray[np.float32]
    zero_point: int = 0
    axis: int = 0


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of one subgraph. free: the axis whose size the caller chooses; shape has an example of it."""

    index: int
    shape: tuple[int, ...]
    grid: Grid | None = None
    free: int | None = None


class Subgraph:
    """What Flatbuffer.subgraph gives: a graph in the making. Operators run in the order in which they are added."""

    def __init__(self, file: Flatbuffer, name: str, index: int) -> None:
        self.index = index
        self._file, self._name = file, name
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._shared: dict[tuple[np.dtype[Any], tuple[int, ...], bytes], Tensor] = {}
        self._inputs: list[int] = []
        self._outputs: list[int] = []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        grid: Grid | None = None,
        free: int | None = None,
        dtype: type[np.generic] = np.float32,
    ) -> Tensor:
        """What an operator will write, or an input: int8 where it has a grid."""
        return self._add(name, shape, np.dtype(np.int8 if grid else dtype), grid, free)

    def constant(self, name: str, values: NDArray[Any], grid: Grid | None = None) -> Tensor:
        content = np.ascontiguousarray(values).tobytes()
        return self._add(name, values.shape, values.dtype, grid, None, buffer=self._file.add_buffer(content))

    def shared(self, name: str, values: NDArray[Any]) -> Tensor:
        """A constant that is stored once, whoever asks for the same numbers: an axis, a bound, a padding."""
        key = (values.dtype, values.shape, values.tobytes())
        if key not in self._shared:
            self._shared[key] = self.constant(name, values)
        return self._shared[key]

    def _add(
        self, name: str, shape: Sequence[int], dtype: np.dtype[Any], grid: Grid | None, free: int | None, **fields: Any
    ) -> Tensor:
        if grid is not None:
            fields["quantization"] = schema.QuantizationParametersT(
                scale=grid.scales.tolist(),
                zeroPoint=[grid.zero_point] * len(grid.scales),
                quantizedDimension=grid.axis,
            )
        sizes = tuple(int(size) for size in shape)
        if free is not None:
            fields["shapeSignature"] = [-1 if axis == free else size for axis, size in enumerate(sizes)]
        self._tensors.append(schema.TensorT(name=name, shape=list(sizes), type=TYPES[dtype], **fields))
        return Tensor(len(self._tensors) - 1, sizes, grid, free)

    def operator(
        self,
        kind: str,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor],
        options: Any = None,
        version: int = 1,
    ) -> None:
        """kind: a name of schema.BuiltinOperator. inputs: None for one that it may have and here has not.

        options: an object of the schema, such as schema.Conv2DOptionsT(). version: the least that knows these types.
        """
        operator = schema.OperatorT(
            opcodeIndex=self._file.operator_code(kind, version),
            inputs=[-1 if tensor is None else tensor.index for tensor in inputs],
            outputs=[tensor.index for tensor in outputs],
        )
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._operators.append(operator)

    def made(
        self,
        kind: str,
        inputs: Sequence[Tensor | None],
        name: str,
        options: Any = None,
        version: int = 1,
        shape: Sequence[int] | None = None,
        grid: Grid | None = None,
        dtype: type[np.generic] = np.float32,
    ) -> Tensor:
        """The output of an operator, of its first input's shape unless given, with the same axis free."""
        first = inputs[0]
        assert first is not None
        output = self.tensor(name, first.shape if shape is None else shape, grid, first.free, dtype)
        self.operator(kind, inputs, [output], options, version)
        return output

    def close(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        self._inputs, self._outputs = [t.index for t in inputs], [t.index for t in outputs]

    def packed(self) -> Any:
        """As an object of the schema."""
        return schema.SubGraphT(
            name=self._name,
            tensors=self._tensors,
            operators=self._operators,
            inputs=self._inputs,
            outputs=self._outputs,
        )


class Flatbuffer:
    """A TFLite model in the making. The subgraph made first is the one that runs; its operators call the others."""

    def __init__(self) -> None:
        self._subgraphs: list[Subgraph] = []
        self._buffers = [_Buffer(b"")]  # the first is empty and belongs to every tensor that is no constant
        self._codes: dict[tuple[int, int], int] = {}

    def subgraph(self, name: str) -> Subgraph:
        self._subgraphs.append(Subgraph(self, name, len(self._subgraphs)))
        return self._subgraphs[-1]

    def add_buffer(self, content: bytes) -> int:
        self._buffers.append(_Buffer(content))
        return len(self._buffers) - 1

    def operator_code(self, kind: str, version: int) -> int:
        return self._codes.setdefault((getattr(schema.BuiltinOperator, kind), version), len(self._codes))

    def finish(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
        """The file. inputs, outputs: of the first subgraph, by their name in the signature. metadata: text by name."""
        self._subgraphs[0].close(list(inputs.values()), list(outputs.values()))
        signature = schema.SignatureDefT(
            signatureKey=SIGNATURE,
            inputs=[schema.TensorMapT(name=name, tensorIndex=tensor.index) for name, tensor in inputs.items()],
            outputs=[schema.TensorMapT(name=name, tensorIndex=tensor.index) for name, tensor in outputs.items()],
        )
        model = schema.ModelT(
            version=SCHEMA_VERSION,
            description="pocket-crnn",
            # readers of before there were more than 127 operators look at the deprecated field only
            operatorCodes=[
                schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=version)
                for code, version in self._codes
            ],
            subgraphs=[subgraph.packed() for subgraph in self._subgraphs],
            metadata=[
                schema.MetadataT(name=name, buffer=self.add_buffer(text.encode())) for name, text in metadata.items()
            ],
            buffers=self._buffers,
            signatureDefs=[signature],
        )
        # a builder that is too small doubles and copies all it has
        builder = flatbuffers.Builder(2**17 + sum(len(buffer.content) for buffer in self._buffers))
        builder.Finish(model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())


@dataclass(frozen=True, eq=False)
class _Buffer:
    """Takes the place of the schema's BufferT, which packs byte by byte and unaligned."""

    content: bytes

    def Pack(self, builder: flatbuffers.Builder) -> int:
        data = None
        if self.content:
            builder.StartVector(1, len(self.content), ALIGNMENT)
            builder.head -= len(self.content)
            builder.Bytes[builder.head : builder.head + len(self.content)] = self.content
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        packed: int = schema.BufferEnd(builder)
        return packed
