"""The recogniser network: its shapes, its independence of the batch, and whose weights it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crnn.charset import BLANK, Charset
from crnn.checkpoint import Checkpoint, CrnnSizes, load_checkpoint
from crnn.ctc import greedy
from crnn.model import Crnn, EncoderLayer, copy_classifier, evaluate, parameter_count, read_lines
from data.lines import Line, Picture
from data.picture import InputSpec, prepare

SIZES = CrnnSizes("resnet18", 0.125, 32, 16, 2, True, 0, 11)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("linear", [0, 12])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_encoder_is_as_wide_and_deep_as_its_sizes_say(bidirectional: bool, linear: int, layers: int) -> None:
    sizes = replace(SIZES, bidirectional=bidirectional, linear=linear, layers=layers)
    model = Crnn(sizes).eval()
    with torch.inference_mode():
        outputs = model(torch.randn(2, 3, 32, 48))
    assert outputs.features.shape == (2, 12, 32)
    assert outputs.encoded.shape == (2, 12, linear or (32 if bidirectional else 16)) == (2, 12, sizes.encoded)
    assert outputs.log_probs.shape == (2, 12, 11)
    assert len(model.encoder.layers) == layers
    for layer in model.encoder.layers:
        assert isinstance(layer, EncoderLayer)
        assert layer.lstm.bidirectional == bidirectional
        assert (layer.linear is not None) == bool(linear)


def test_every_column_is_a_distribution() -> None:
    with torch.inference_mode():
        log_probs = Crnn(SIZES).eval()(torch.randn(2, 3, 32, 48)).log_probs
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(2, 12), atol=1e-5)


def test_an_lstm_of_one_direction_knows_nothing_of_later_columns() -> None:
    features = torch.randn(1, 12, 32)
    later = features.clone()
    later[:, 6:] = 0
    for bidirectional in (True, False):
        model = Crnn(replace(SIZES, bidirectional=bidirectional)).eval()
        with torch.inference_mode():
            same = torch.allclose(model.read(features).log_probs[:, :6], model.read(later).log_probs[:, :6])
        assert same != bidirectional


def test_an_encoder_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="encoder has 0 layers; give at least 1"):
        Crnn(replace(SIZES, layers=0))


def test_encoder_and_classifier_stay_in_float32_under_autocast() -> None:
    model = Crnn(SIZES).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        outputs = model(torch.randn(1, 3, 32, 32))
    assert {outputs.features.dtype, outputs.encoded.dtype, outputs.log_probs.dtype} == {torch.float32}


def test_parameters_are_counted_without_buffers() -> None:
    layer = EncoderLayer(4, 3, bidirectional=False, linear=2)
    assert parameter_count(layer) == 4 * (4 * 3 + 3 * 3 + 3 + 3) + (3 * 2 + 2)
    assert parameter_count(torch.nn.BatchNorm2d(5)) == 10


def sensitive(backbone: str, pictures: torch.Tensor, classes: int) -> Crnn:
    """A random network whose normalisation knows these pictures, so that what it reads differs from line to line."""
    torch.manual_seed(3)
    model = Crnn(replace(SIZES, backbone=backbone, classes=classes)).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain average of what it sees
            torch.nn.init.uniform_(module.weight, 0.5, 1)
        if isinstance(module, torch.nn.LSTM):
            for weights in module.parameters():
                torch.nn.init.normal_(weights, 0, 0.2)
    torch.nn.init.normal_(model.classifier.weight, 0, 0.25)
    torch.nn.init.zeros_(model.classifier.bias)
    with torch.no_grad():
        model(pictures)
    return model.eval()


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small"])
def test_a_line_gives_the_same_log_probabilities_alone_and_in_any_batch(
    backbone: str, draw_word: Callable[[str], Picture]
) -> None:
    words, charset = ("Milk", "2.50", "Total", "brown", "lines"), Charset.named("ascii")
    prepared = torch.stack([torch.from_numpy(prepare(draw_word(word), InputSpec(), 96)) for word in words])
    model = sensitive(backbone, prepared, charset.classes)
    with torch.inference_mode():
        alone = torch.cat([model(picture[None]).log_probs for picture in prepared])
        for order in ([0, 1, 2, 3, 4], [4, 2], [3, 0, 1], [1, 1, 1]):
            together = model(prepared[order]).log_probs
            assert (together - alone[order]).abs().max() < 1e-5
            texts = [greedy(log_probs.numpy(), charset).text for log_probs in together]
            assert texts == [greedy(alone[i].numpy(), charset).text for i in order]
    assert len({greedy(log_probs.numpy(), charset).text for log_probs in alone}) >= len(words) - 1


def test_lines_of_all_widths_are_read_the_same_in_batches_of_any_size(
    draw_word: Callable[[str], Picture],
) -> None:
    words, charset, spec = (
        ["a", "brown", "a longer line", "crown", "b", "another line"],
        Charset.named("ascii"),
        InputSpec(),
    )
    lines = [Line(draw_word(word), word, word) for word in words]
    prepared = torch.stack([torch.from_numpy(prepare(line.picture, spec, 128)) for line in lines])
    model = sensitive("resnet18", prepared, charset.classes)

    def texts(some: list[Line], batch: int) -> list[str]:
        return [r.text for r in read_lines(model, some, charset, spec, batch)]

    alone = [texts([line], 1)[0] for line in lines]
    assert texts(lines, 64) == texts(lines, 2) == alone
    assert texts(lines[::-1], 3) == alone[::-1]
    assert len(set(alone)) == len(words)


def test_an_evaluation_leaves_a_model_in_training(random_checkpoint: Callable[..., Path]) -> None:
    checkpoint = load_checkpoint(random_checkpoint())
    model = Crnn.from_checkpoint(checkpoint).train()
    line = Line(np.full((32, 64, 3), 255, np.uint8), "a", "a")
    assert evaluate(model, [line], checkpoint.info.charset, checkpoint.info.input_spec).lines == 1
    assert model.training


@pytest.mark.parametrize(
    "changes", [{"hidden": 8}, {"layers": 1}, {"layers": 3}, {"classes": 12}, {"linear": 4}, {"backbone": "resnet34"}]
)
def test_weights_that_do_not_fit_the_sizes_are_refused(
    random_checkpoint: Callable[..., Path], changes: dict[str, object]
) -> None:
    checkpoint = load_checkpoint(random_checkpoint())
    info = replace(checkpoint.info, sizes=replace(checkpoint.info.sizes, **changes))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"weights do not fit its sizes \(at "):
        Crnn.from_checkpoint(Checkpoint(info, checkpoint.weights))


def test_a_network_of_a_checkpoint_has_its_weights_and_reads(random_checkpoint: Callable[..., Path]) -> None:
    checkpoint = load_checkpoint(random_checkpoint())
    model = Crnn.from_checkpoint(checkpoint)
    assert not model.training
    assert all(torch.equal(value, checkpoint.weights[name]) for name, value in model.state_dict().items())


def test_the_classes_of_shared_characters_and_the_blank_are_taken_over_and_the_others_stay() -> None:
    known, charset = Charset.of("abd "), Charset.of("bcd")
    other, model = Crnn(replace(SIZES, classes=known.classes)), Crnn(replace(SIZES, classes=charset.classes))
    before = model.classifier.weight.detach().clone()
    weights = other.state_dict()
    copy_classifier(model, charset, weights, known)
    for character in "bd":
        own, theirs = charset.encode(character)[0], known.encode(character)[0]
        assert torch.equal(model.classifier.weight[own], weights["classifier.weight"][theirs])
        assert torch.equal(model.classifier.bias[own], weights["classifier.bias"][theirs])
    assert torch.equal(model.classifier.weight[BLANK], weights["classifier.weight"][BLANK])
    new = charset.encode("c")[0]
    assert torch.equal(model.classifier.weight[new], before[new])


def test_a_network_that_knows_other_characters_too_reads_as_before_where_they_are_shared() -> None:
    known, charset = Charset.of("ab"), Charset.of("ba")
    other, model = Crnn(replace(SIZES, classes=3)), Crnn(replace(SIZES, classes=3))
    model.load_state_dict({k: v for k, v in other.state_dict().items() if "classifier" not in k}, strict=False)
    copy_classifier(model, charset, other.state_dict(), known)
    picture = torch.from_numpy(prepare(np.full((32, 64, 3), 90, np.uint8), InputSpec()))[None]
    with torch.inference_mode():
        assert torch.equal(model.eval()(picture).log_probs, other.eval()(picture).log_probs)
