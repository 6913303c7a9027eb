"""An LSTM layer in TFLite as a loop over the columns, without anything that outlives a run.

TFLite has operators for LSTMs, but they keep their states in variable tensors, which CompiledModel refuses and which
must be reset before every line, and their weights go wrong in half precision once the width has changed. The loop
computes only what depends on the column before; what the input adds to the gates is one product for all columns. In
LiteRT on x86 that is faster, too, since every product is XNNPACK's. Without a loop, column after column written out, it
would be slower and take more memory, for XNNPACK then packs the weights once for every column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from export.flatbuffer import Flatbuffer, Subgraph, Tensor
from export.operators import Lstm

Product = Callable[[Subgraph, str, Tensor, NDArray[np.float32], NDArray[np.float32] | None], Tensor]
"""Adds to a subgraph, under a name, (1, T, in) times a weight (out, in) plus a bias (out,), if any: (1, T, out)."""

DIRECTIONS, COLUMNS, FEATURES = 0, 1, 2
"""Axes of a sequence (1, T, features), and of one for every direction (directions, T, features)."""


def write_lstm(file: Flatbuffer, main: Subgraph, lstm: Lstm, source: Tensor, product: Product) -> Tensor:
    """Adds the layer to main: source (1, T, in) -> (1, T, hidden * directions)."""
    name = lstm.output
    sources = [source, reverse(main, f"{name}.reversed", source)] if len(lstm.directions) == 2 else [source]
    gates = []
    for number, (direction, line) in enumerate(zip(lstm.directions, sources, strict=True)):
        bias = direction.input_bias + direction.recurrent_bias
        gates.append(product(main, f"{name}.from_input.{number}", line, direction.input_weight, bias))
    outputs = _write_loop(file, main, lstm, join(main, f"{name}.from_input", gates, DIRECTIONS), product)
    if len(sources) == 1:
        return outputs
    forward, backward = split(main, f"{name}.directions", outputs, 2, DIRECTIONS)
    return join(main, name, [forward, reverse(main, f"{name}.restored", backward)], FEATURES)


def _write_loop(file: Flatbuffer, main: Subgraph, lstm: Lstm, gates: Tensor, product: Product) -> Tensor:
    """Adds the loop to main: what the input adds to the gates (directions, T, 4 * hidden) -> (directions, T, hidden).

    What goes round: the number of the column, the output and the cell state of the column before, the gates, and the
    outputs of all columns, filled one by one.
    """
    name, hidden, (directions, columns, _) = lstm.output, lstm.hidden, gates.shape

    def going_round(graph: Subgraph) -> list[Tensor]:
        return [
            graph.tensor("column", (1,), dtype=np.int32),
            graph.tensor("before", (directions, 1, hidden)),
            graph.tensor("cell", (directions, 1, hidden)),
            graph.tensor("gates", gates.shape, free=gates.free),
            graph.tensor("outputs", (directions, columns, hidden), free=gates.free),
        ]

    condition, body = file.subgraph(f"{name}.condition"), file.subgraph(f"{name}.body")
    _write_condition(condition, going_round(condition))
    _write_body(body, going_round(body), lstm, product)
    first = main.shared("first column", np.zeros(1, np.int32))
    zeros = main.shared(f"{name}.zeros", np.zeros((directions, 1, hidden), np.float32))
    # as many columns as there are gates; of what is in them nothing will be left
    bounds = [main.shared("start", np.zeros(3, np.int32)), main.shared("cut", np.array([-1, -1, hidden], np.int32))]
    unfilled = main.made(
        "SLICE", [gates, *bounds], f"{name}.unfilled", schema.SliceOptionsT(), shape=(directions, columns, hidden)
    )
    results = going_round(main)
    options = schema.WhileOptionsT(condSubgraphIndex=condition.index, bodySubgraphIndex=body.index)
    main.operator("WHILE", [first, zeros, zeros, gates, unfilled], results, options)
    return results[-1]


def _write_condition(graph: Subgraph, inputs: Sequence[Tensor]) -> None:
    """Whether there is another column."""
    column, *_, outputs = inputs
    shape = graph.tensor("shape", (3,), dtype=np.int32)
    graph.operator("SHAPE", [outputs], [shape], schema.ShapeOptionsT(outType=schema.TensorType.INT32))
    one = graph.shared("one", np.array([1], np.int32))
    columns = graph.made("SLICE", [shape, one, one], "columns", schema.SliceOptionsT(), shape=(1,), dtype=np.int32)
    more = graph.made("LESS", [column, columns], "more", schema.LessOptionsT(), dtype=np.bool_)
    graph.close(inputs, [more])


def _write_body(graph: Subgraph, inputs: Sequence[Tensor], lstm: Lstm, product: Product) -> None:
    """One column of every direction: what goes round -> what goes round next."""
    column, before, cell, gates, outputs = inputs
    directions, hidden = len(lstm.directions), lstm.hidden
    # what XNNPACK does not compute stands first and last, so that it gets the rest in one piece
    from_input = graph.tensor("from_input", (directions, 1, 4 * hidden))
    graph.operator("GATHER", [gates, column], [from_input], schema.GatherOptionsT(axis=COLUMNS))
    zero, one = (graph.shared(f"{n}", np.array([n], np.int32)) for n in (0, 1))
    place = graph.tensor("place", (3,), dtype=np.int32)
    graph.operator("CONCATENATION", [zero, column, zero], [place], schema.ConcatenationOptionsT(axis=0))
    next_column = graph.made("ADD", [column, one], "next column", schema.AddOptionsT(), dtype=np.int32)

    befores = split(graph, "before", before, directions, DIRECTIONS)
    products = [
        product(graph, f"from_before.{number}", own, direction.recurrent_weight, None)
        for number, (direction, own) in enumerate(zip(lstm.directions, befores, strict=True))
    ]
    from_before = join(graph, "from_before", products, DIRECTIONS)
    linear_gates = graph.made("ADD", [from_before, from_input], "gates", schema.AddOptionsT())
    parts = split(graph, "gate", linear_gates, 4, FEATURES)
    keep_in, keep, candidate, keep_out = (
        graph.made("TANH" if number == 2 else "LOGISTIC", [part], f"open.{number}") for number, part in enumerate(parts)
    )  # torch's order: input, forget, cell, output
    kept, added = multiply(graph, "kept", keep, cell), multiply(graph, "added", keep_in, candidate)
    new_cell = graph.made("ADD", [kept, added], "cell", schema.AddOptionsT())
    output = multiply(graph, "output", keep_out, graph.made("TANH", [new_cell], "shown"))

    options = schema.DynamicUpdateSliceOptionsT()
    filled = graph.made("DYNAMIC_UPDATE_SLICE", [outputs, output, place], "outputs", options)
    graph.close(inputs, [next_column, output, new_cell, gates, filled])


def multiply(graph: Subgraph, name: str, left: Tensor, right: Tensor) -> Tensor:
    return graph.made("MUL", [left, right], name, schema.MulOptionsT())


def reverse(graph: Subgraph, name: str, source: Tensor) -> Tensor:
    """(1, T, features), the last column first."""
    axis = graph.shared("columns", np.array([COLUMNS], np.int32))
    return graph.made("REVERSE_V2", [source, axis], name, schema.ReverseV2OptionsT())


def join(graph: Subgraph, name: str, parts: Sequence[Tensor], axis: int) -> Tensor:
    """Parts of one shape as one tensor, in their order."""
    if len(parts) == 1:
        return parts[0]
    shape = [size * (len(parts) if i == axis else 1) for i, size in enumerate(parts[0].shape)]
    return graph.made("CONCATENATION", parts, name, schema.ConcatenationOptionsT(axis=axis), shape=shape)


def split(graph: Subgraph, name: str, source: Tensor, number: int, axis: int) -> list[Tensor]:
    """As many parts of one shape."""
    if number == 1:
        return [source]
    shape = [size // (number if i == axis else 1) for i, size in enumerate(source.shape)]
    parts = [graph.tensor(f"{name}.{i}", shape, free=source.free) for i in range(number)]
    along = graph.shared("axis", np.array(axis, np.int32))
    graph.operator("SPLIT", [along, source], parts, schema.SplitOptionsT(numSplits=number))
    return parts
