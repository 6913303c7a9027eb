"""TFLite files piece by piece."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from export.flatbuffer import Flatbuffer, Grid, Subgraph

FLOATS = NDArray[np.float32]


def run(content: bytes, *inputs: FLOATS) -> Any:
    """What the first subgraph gives, its inputs resized to what is given."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    details = interpreter.get_input_details()
    for entry, values in zip(details, inputs, strict=True):
        interpreter.resize_tensor_input(entry["index"], values.shape)
    interpreter.allocate_tensors()
    for entry, values in zip(details, inputs, strict=True):
        interpreter.set_tensor(entry["index"], values)
    interpreter.invoke()
    (output,) = interpreter.get_output_details()
    return interpreter.get_tensor(output["index"])


def scaled(columns: int = 3, factor: FLOATS | None = None, free: int | None = None) -> bytes:
    """A file that multiplies what it is given."""
    file = Flatbuffer()
    graph = file.subgraph("main")
    given = graph.tensor("given", (1, columns), free=free)
    constant = graph.constant("factor", np.array([2.5], np.float32) if factor is None else factor)
    product = graph.made("MUL", [given, constant], "product", schema.MulOptionsT())
    return file.finish({"given": given}, {"product": product}, {"note": "grüße", "empty": ""})


def stored(content: bytes) -> Any:
    return schema.Model.GetRootAs(content)


def test_an_operator_computes_with_a_constant() -> None:
    given = np.array([[1, -2, 4]], np.float32)
    assert run(scaled(), given).tolist() == [[2.5, -5, 10]]


def test_a_free_axis_takes_any_size() -> None:
    content = scaled(free=1)
    given = stored(content).Subgraphs(0).Tensors(0)
    assert given.ShapeAsNumpy().tolist() == [1, 3]
    assert given.ShapeSignatureAsNumpy().tolist() == [1, -1]
    assert run(content, np.ones((1, 7), np.float32)).tolist() == [[2.5] * 7]


def test_every_constant_lies_at_a_multiple_of_sixteen_bytes() -> None:
    file = Flatbuffer()
    graph = file.subgraph("main")
    given = value = graph.tensor("given", (1,))
    for size in (1, 2, 3, 5, 33, 100):
        factor = graph.constant(f"factor {size}", np.ones((size, 1), np.float32))
        value = graph.made("MUL", [value, factor], f"value {size}", schema.MulOptionsT(), shape=(size, 1))
    content = file.finish({"given": given}, {"value": value}, {"a": "b", "cd": "efg"})
    model = stored(content)
    assert starts(model)
    assert all(start % 16 == 0 for start in starts(model))


def starts(model: Any) -> list[int]:
    """Where the bytes of every buffer that has any begin in the file."""
    tables = [model.Buffers(i)._tab for i in range(model.BuffersLength())]
    return [table.Vector(offset) for table in tables if (offset := table.Offset(4))]


def test_the_file_says_what_it_is_and_carries_its_metadata() -> None:
    content = scaled()
    model = stored(content)
    assert content[4:8] == b"TFL3"
    entries = [model.Metadata(i) for i in range(model.MetadataLength())]
    texts = {e.Name(): model.Buffers(e.Buffer()) for e in entries}
    assert bytes(texts[b"note"].DataAsNumpy()).decode() == "grüße"
    assert texts[b"empty"].DataIsNone()


def test_inputs_and_outputs_are_found_by_their_names() -> None:
    interpreter = Interpreter(model_content=scaled(), num_threads=1)
    runner = interpreter.get_signature_runner()
    assert runner(given=np.array([[1, 2, 3]], np.float32))["product"].tolist() == [[2.5, 5, 7.5]]


def test_a_shared_constant_is_stored_once_for_the_same_numbers_of_the_same_shape_and_type() -> None:
    graph = Flatbuffer().subgraph("main")
    numbers = np.array([3, 4], np.int32)
    first = graph.shared("one", numbers)
    assert graph.shared("two", numbers.copy()) is first
    assert graph.shared("three", numbers.astype(np.float32)) is not first
    assert graph.shared("four", numbers[None]) is not first
    assert graph.constant("five", numbers) is not first


def test_integers_are_stored_with_their_grid() -> None:
    file = Flatbuffer()
    graph = file.subgraph("main")
    integers = np.array([[1, -2], [3, 100]], np.int8)
    grid = Grid(np.array([0.5, 0.25], np.float32), 0, axis=1)
    weights = graph.constant("weights", integers, grid)
    given = graph.tensor("given", (1, 4), Grid(np.array([0.1], np.float32), -7))
    model = stored(file.finish({"given": given}, {"given": given}, {}))
    tensors = [model.Subgraphs(0).Tensors(t.index) for t in (weights, given)]
    kept, taken = (tensor.Quantization() for tensor in tensors)
    assert [tensor.Type() for tensor in tensors] == [schema.TensorType.INT8] * 2
    assert (kept.ScaleAsNumpy().tolist(), kept.QuantizedDimension()) == ([0.5, 0.25], 1)
    assert (taken.ScaleAsNumpy().tolist(), taken.ZeroPointAsNumpy().tolist()) == ([pytest.approx(0.1)], [-7])
    assert model.Buffers(tensors[0].Buffer()).DataAsNumpy().view(np.int8).tolist() == [1, -2, 3, 100]


def test_an_input_may_be_left_out() -> None:
    file = Flatbuffer()
    graph = file.subgraph("main")
    given = graph.tensor("given", (1, 2))
    weight = graph.constant("weight", np.array([[1, 2], [3, 4], [5, 6]], np.float32))
    options = schema.FullyConnectedOptionsT()
    product = graph.made("FULLY_CONNECTED", [given, weight, None], "product", options, shape=(1, 3))
    content = file.finish({"given": given}, {"product": product}, {})
    assert run(content, np.array([[1, 10]], np.float32)).tolist() == [[21, 43, 65]]


def test_subgraphs_are_called_by_operators_of_the_first() -> None:
    """x is doubled while it is below 100."""
    file = Flatbuffer()
    main, condition, body = (file.subgraph(name) for name in ("main", "condition", "body"))
    given, tested, turned = (graph.tensor("x", (1,)) for graph in (main, condition, body))
    limit = condition.constant("limit", np.array([100], np.float32))
    less = condition.made("LESS", [tested, limit], "less", schema.LessOptionsT(), dtype=np.bool_)
    condition.close([tested], [less])
    body.close([turned], [doubled(body, turned)])
    options = schema.WhileOptionsT(condSubgraphIndex=condition.index, bodySubgraphIndex=body.index)
    found = main.made("WHILE", [given], "found", options)
    content = file.finish({"x": given}, {"found": found}, {})
    assert [run(content, np.array([x], np.float32)).item() for x in (3, 100, 1)] == [192, 100, 128]


def doubled(graph: Subgraph, value: Any) -> Any:
    two = graph.constant("two", np.array([2], np.float32))
    return graph.made("MUL", [value, two], "doubled", schema.MulOptionsT())


def test_an_operator_beyond_the_first_127_is_marked_as_such_for_old_readers() -> None:
    file = Flatbuffer()
    graph = file.subgraph("main")
    given = graph.tensor("given", (4,))
    update, start = (
        graph.constant("update", np.array([7, 8], np.float32)),
        graph.constant("start", np.array([1], np.int32)),
    )
    updated = graph.made("DYNAMIC_UPDATE_SLICE", [given, update, start], "updated", schema.DynamicUpdateSliceOptionsT())
    content = file.finish({"given": given}, {"updated": updated}, {})
    code = stored(content).OperatorCodes(0)
    placeholder = schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES
    assert code.BuiltinCode() == schema.BuiltinOperator.DYNAMIC_UPDATE_SLICE > placeholder
    assert code.DeprecatedBuiltinCode() == placeholder
    assert run(content, np.zeros(4, np.float32)).tolist() == [0, 7, 8, 0]
