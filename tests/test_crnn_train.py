"""What a training run is made of: sources that are checked first, the charset, the network, the model file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from crnn import fit as fit_module
from crnn import train as train_module
from crnn.charset import Charset
from crnn.checkpoint import load_checkpoint, load_tensors
from crnn.commands import FitOptions, run_path
from crnn.train import (
    Sources,
    build_model,
    choose_charset,
    count_characters,
    make_windows,
    open_sources,
    recorded_synthesis,
    synthetic,
    train,
)
from crnn.train_cli import TrainOptions
from data.folder_lines import FolderLines
from data.lines import Picture, hold_out
from data.lmdb_lines import write_lmdb
from data.picture import InputSpec
from data.synthesis.source import SynthesisOptions, SynthesisSource

ASCII = Charset.named("ascii")


def tiny(out: Path, data: Sequence[Path | str], **changes: Any) -> TrainOptions:
    """A run of two steps on stored lines."""
    fit = FitOptions(until=("2",), batch_lines=4, workers=0, warm_up=1, threads=1, precision="fp32")
    chosen: dict[str, Any] = {
        "data": tuple(map(str, data)), "backbone": "resnet18", "width": 0.125, "features": 32, "hidden": 8,
        "layers": 1, "validation": "0", "column_weight": 0.0, "fit": fit,
    }  # fmt: skip
    return TrainOptions(out=out, **(chosen | changes))


def sources_of(data: Sequence[Path | str], charset: Charset = ASCII, **changes: Any) -> Sources:
    chosen: dict[str, Any] = {"validation": "0", "validation_lines": 100, "drop": False, "synth": {}, "seed": 0}
    return open_sources(tuple(map(str, data)), charset, InputSpec(), **(chosen | changes))


@pytest.fixture
def with_a_long_label(labelled_folder: Path, draw_word: Callable[[str], Picture]) -> Path:
    """The four words, and one whose picture is too narrow for its label."""
    cv2.imwrite(str(labelled_folder / "images/narrow.png"), draw_word("ab"))
    with (labelled_folder / "labels.tsv").open("a") as labels:
        labels.write("images/narrow.png\tbookkeepers\n")
    return labelled_folder


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that gets as far as the loop has failed."""

    def started(*_: object, **__: object) -> None:
        raise AssertionError("training has started")

    monkeypatch.setattr(train_module, "fit", started)


@pytest.mark.usefixtures("no_training")
def test_a_line_with_too_few_columns_is_named_before_training_starts(tmp_path: Path, with_a_long_label: Path) -> None:
    with pytest.raises(ValueError, match=r"narrow\.png: the label 'bookkeepers' needs 14 columns and the picture of"):
        train(tiny(tmp_path / "m.pt", [with_a_long_label]), "crnn train")
    assert not (tmp_path / "m.pt").exists()


@pytest.mark.usefixtures("no_training")
def test_a_label_that_the_charset_does_not_cover_is_named_before_training_starts(
    tmp_path: Path, labelled_folder: Path
) -> None:
    with pytest.raises(ValueError, match=r"images/000001\.png: the label '2\.50' holds '\.025', which the charset"):
        train(tiny(tmp_path / "m.pt", [labelled_folder], charset="chars:Miltobk Ta"), "crnn train")


def test_lines_that_are_dropped_are_counted_in_the_model_file(tmp_path: Path, with_a_long_label: Path) -> None:
    options = tiny(tmp_path / "m.pt", [with_a_long_label], charset="chars:MilkTotabeprs", drop_bad=True)
    train(options, "crnn train")
    provenance = load_checkpoint(tmp_path / "m.pt").info.provenance
    assert provenance["dropped"] == {str(with_a_long_label): {"outside the charset": 1, "too few columns": 1}}


def test_case_lower_trains_lower_case(tmp_path: Path, labelled_folder: Path) -> None:
    train(tiny(tmp_path / "m.pt", [labelled_folder], case="lower"), "crnn train")
    charset = load_checkpoint(tmp_path / "m.pt").info.charset
    assert charset.case == "lower"
    assert not set("MT") & set(charset.characters)
    windows = make_windows(sources_of([labelled_folder], charset), charset, InputSpec(), FitOptions(), augment=False)
    assert {text for batch in windows[0] for text in batch.texts} == {"milk", "2.50", "total", "book"}


def test_a_lower_case_label_that_needs_a_column_more_is_checked_as_such(labelled_folder: Path) -> None:
    (labelled_folder / "labels.tsv").write_text("images/000000.png\t" + "Aa" * 6 + "\n")  # 12 or 23 columns
    with pytest.raises(ValueError, match="needs 23 columns"):
        sources_of([labelled_folder], Charset.of("a", "lower"))
    sources_of([labelled_folder], Charset.of("Aa"))


def test_synthetic_lines_of_a_lower_case_charset_are_drawn_in_both_cases_and_labelled_in_one() -> None:
    charset = Charset.named("alphanumeric", "lower")
    source, _ = synthetic({"shortest": 4}, charset, True, 0)
    texts = "".join(source[i].text or "" for i in range(40))
    assert any(c.isupper() for c in texts)
    assert any(c.islower() for c in texts)
    assert charset.missing(texts) == ""


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"halo": 1}, r"\(halo\)"),
        ({"longest": "ten"}, r"\(longest: 'ten' where int belongs\)"),
        ({"fonts": "none"}, r"\(fonts: none is none of training, held-out, all\)"),
        ({"looks": [1.0]}, r"\(looks: \[1\.0\] where 4 values belong\)"),
    ],
)
def test_lines_that_were_drawn_in_another_way_are_refused_by_name(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=rf"with options that this version does not know {what}; give stored lines"):
        synthetic(fields, ASCII, False, 0)


def test_what_no_font_has_is_left_out_of_drawn_lines_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    made, unseen = synthetic({}, Charset.of("abcde\U0001f9ff"), False, 0)
    assert isinstance(made, SynthesisSource)
    assert isinstance(unseen, SynthesisSource)
    assert made.options.characters == unseen.options.characters == "abcde"
    assert "warning: no drawn line holds '\U0001f9ff', which no font has" in capsys.readouterr().err


def test_a_charset_of_which_no_font_has_most_is_refused() -> None:
    with pytest.raises(ValueError, match="install a font that has them or leave them out"):
        synthetic({}, Charset.of("ab\U0001f9fe\U0001f9ff"), False, 0)


def test_places_in_a_model_file_are_places_again(tmp_path: Path, labelled_folder: Path) -> None:
    (tmp_path / "corpus.txt").write_text("one\ntwo\n", encoding="utf-8")
    fields = asdict(SynthesisOptions(corpus=tmp_path / "corpus.txt", backgrounds=labelled_folder, looks=(0, 1, 0, 0)))
    stored = json.loads(json.dumps(fields, default=str))
    made, again = (synthetic(given, ASCII, False, 0)[0] for given in (fields, stored))
    assert isinstance(made, SynthesisSource)
    assert isinstance(again, SynthesisSource)
    assert made.options == again.options
    assert again.options.corpus == tmp_path / "corpus.txt"
    assert again.options.backgrounds == labelled_folder


def test_synthetic_lines_of_a_charset_that_keeps_case_are_drawn_with_its_characters_alone() -> None:
    source, _ = synthetic({}, Charset.of("abc"), True, 0)
    assert set("".join(source[i].text or "" for i in range(20))) <= set("abc")


@pytest.mark.parametrize("characters", ["aß", "aµ", "aÿ"])
def test_nothing_is_drawn_that_a_lower_case_charset_cannot_label(characters: str) -> None:
    charset = Charset.of(characters, "lower")  # the S of the upper ß, and the upper µ, whose lower is another letter
    source, unseen = synthetic({}, charset, True, 0)
    for lines in (source, unseen):
        assert [charset.missing(lines[i].text or "") for i in range(20)] == [""] * 20


def test_synthetic_validation_lines_have_fonts_and_a_seed_of_their_own() -> None:
    source, unseen = synthetic({}, ASCII, True, 0)
    fonts = [{font.path for font in lines.fonts} for lines in (source, unseen)]  # type: ignore[attr-defined]
    assert not fonts[0] & fonts[1]
    assert len(sources_of(["synth-easy"], validation="0.05", validation_lines=7).validation) == 7


def test_the_same_lines_are_held_out_of_a_folder_and_of_the_lmdb_made_of_it(
    tmp_path: Path, labelled_folder: Path
) -> None:
    lines = FolderLines(labelled_folder)
    write_lmdb(tmp_path / "w.lmdb", map(lines.entry, range(len(lines))))
    held = [
        {line.text for line in sources_of([place], validation="0.5").validation}
        for place in (labelled_folder, tmp_path / "w.lmdb")
    ]
    assert held[0] == held[1]
    assert 0 < len(held[0]) < 4


def test_no_line_is_both_learnt_and_held_out(labelled_folder: Path) -> None:
    sources = sources_of([labelled_folder], validation="0.5")
    assert not set(sources.training[0].texts()) & {line.text for line in sources.validation}
    assert len(sources.training[0]) + len(sources.validation) == 4


def test_no_group_is_both_learnt_from_and_validated_on(tmp_path: Path, draw_word: Callable[[str], Picture]) -> None:
    folder = tmp_path / "receipts"
    for number in range(40):
        (folder / f"r{number % 10}").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"r{number % 10}/{number}.png"), draw_word("Total"))
    rows = "".join(f"r{number % 10}/{number}.png\tr{number % 10}\n" for number in range(40))
    (folder / "labels.tsv").write_text(rows)
    sources = sources_of([folder], validation="0.3", group_by=r"^r\d+")
    learnt, validated = set(sources.training[0].texts()), {line.text for line in sources.validation}
    assert not learnt & validated
    assert learnt | validated == {f"r{number}" for number in range(10)}
    assert validated
    with pytest.raises(ValueError, match=r"r0/0\.png of .*receipts does not match --group-by '\^page'"):
        sources_of([folder], validation="0.3", group_by="^page")


def test_validation_may_be_a_source_of_its_own(labelled_folder: Path) -> None:
    sources = sources_of([labelled_folder], validation=str(labelled_folder), validation_lines=3)
    assert len(sources.training[0]) == 4
    assert [line.text for line in sources.validation] == ["Milk", "2.50", "Total"]


def test_a_line_with_an_empty_label_is_not_validated_on(labelled_folder: Path) -> None:
    labels = labelled_folder / "labels.tsv"
    labels.write_text(labels.read_text().replace("\tTotal", "\t"))
    sources = sources_of([labelled_folder], validation=str(labelled_folder), pictures=(str(labelled_folder),))
    assert [line.text for line in sources.validation] == ["Milk", "2.50", "book"]


def test_labels_that_are_not_learnt_from_refuse_no_line(labelled_folder: Path) -> None:
    pictures = (str(labelled_folder),)
    sources = sources_of([labelled_folder], Charset.of("abc"), pictures=pictures)
    assert list(sources.training[0].texts()) == [None] * 4
    learnt, held = hold_out(FolderLines(labelled_folder), 0.5)
    sources = sources_of([labelled_folder], Charset.of("Milktob"), pictures=pictures, validation="0.5")
    assert len(sources.training[0]) == len(learnt)
    fits = [text for text in held.texts() if text in ("Milk", "book")]
    assert [line.text for line in sources.validation] == fits != list(held.texts())
    assert sources.dropped == {pictures[0]: {"outside the charset": len(held) - len(fits)}}


def test_a_share_that_leaves_nothing_to_learn_from_is_refused(labelled_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"--validation 0\.9999 holds out every line of .*words; give a smaller share"):
        sources_of([labelled_folder], validation="0.9999")
    for share in ("1", "-0.1", "nan"):
        with pytest.raises(ValueError, match=f"--validation is {share}; give a share"):
            sources_of([labelled_folder], validation=share)


def test_weights_come_from_the_sources_as_they_are_written(labelled_folder: Path) -> None:
    sources = sources_of([f"{labelled_folder}:3", "synth-easy:0.5"])
    assert sources.weights == (3.0, 0.5)


def test_the_charset_is_ascii_or_what_is_asked_for_or_that_of_the_labels(labelled_folder: Path) -> None:
    def chosen(**changes: Any) -> Charset:
        return choose_charset(tiny(Path("m.pt"), [labelled_folder, "synth"], **changes), None)

    assert chosen() == ASCII
    assert chosen(charset="digits") == Charset.named("digits")
    assert chosen(charset="data").characters == ".025MTabiklot"
    assert chosen(charset="data", case="upper").characters == ".025ABIKLMOT"


def test_the_labels_of_a_stored_source_called_synth_something_count_too(labelled_folder: Path) -> None:
    stored = labelled_folder.rename(labelled_folder.with_name("synth-words"))
    options = tiny(Path("m.pt"), [stored.name], charset="data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(stored.parent)
        assert choose_charset(options, None).characters == ".025MTabiklot"


def test_a_start_brings_its_charset_and_case_unless_another_is_asked_for(
    random_checkpoint: Callable[..., Path], labelled_folder: Path
) -> None:
    start = load_checkpoint(random_checkpoint(charset=Charset.of("abc", "lower")))

    def chosen(**changes: Any) -> Charset:
        return choose_charset(tiny(Path("m.pt"), [labelled_folder], **changes), start)

    assert chosen() == Charset.of("abc", "lower")
    assert chosen(case="upper") == Charset.of("ABC", "upper")
    assert chosen(charset="digits") == Charset.of("0123456789", "lower")


def test_a_network_for_more_characters_starts_from_what_is_known_of_the_shared_ones(
    random_checkpoint: Callable[..., Path],
) -> None:
    start = load_checkpoint(random_checkpoint(charset=Charset.of("ac")))
    charset = Charset.of("abc")
    model = build_model(tiny(Path("m.pt"), []), charset, start, None)
    assert model.sizes == replace(start.info.sizes, classes=4)
    assert torch.equal(model.classifier.weight[[0, 1, 3]], start.weights["classifier.weight"])
    for name, value in model.state_dict().items():
        assert name.startswith("classifier.") or torch.equal(value, start.weights[name])


def test_a_new_backbone_before_a_known_encoder_keeps_the_encoders_sizes(
    random_checkpoint: Callable[..., Path],
) -> None:
    known = load_checkpoint(random_checkpoint(hidden=12, layers=3, linear=20))
    model = build_model(tiny(Path("m.pt"), [], backbone="mobilenet_v3_small"), ASCII, None, known)
    assert model.sizes == replace(known.info.sizes, backbone="mobilenet_v3_small")
    weights = model.state_dict()
    shared = [name for name in weights if name.startswith(("encoder.", "classifier."))]
    assert all(torch.equal(weights[name], known.weights[name]) for name in shared)


@pytest.mark.usefixtures("no_training")
def test_a_least_width_that_does_not_fit_the_columns_is_refused(tmp_path: Path, labelled_folder: Path) -> None:
    with pytest.raises(ValueError, match="widths from 30 to 2048 pixels do not fit; give multiples of 8"):
        train(tiny(tmp_path / "m.pt", [labelled_folder], min_width=30), "crnn train")


def test_unaltered_lines_are_batched_as_they_lie(labelled_folder: Path) -> None:
    windows = make_windows(sources_of([labelled_folder]), ASCII, InputSpec(), FitOptions(), augment=True, exact=True)
    assert windows.augment is None
    assert windows.batching.exact


def test_a_device_that_is_not_there_is_refused_and_not_replaced(
    tmp_path: Path, labelled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    options = tiny(tmp_path / "m.pt", [labelled_folder])
    for device in ("cuda:1", "cpu:3", "meta"):
        with pytest.raises(ValueError, match=f"the device {device} is not there"):
            train(replace(options, fit=replace(options.fit, device=device)), "crnn train")


@pytest.mark.parametrize(("name", "value"), [("hidden", 9), ("backbone", "resnet34"), ("linear", 4)])
def test_sizes_that_a_checkpoint_brings_are_not_asked_for_beside_it(
    tmp_path: Path, labelled_folder: Path, random_checkpoint: Callable[..., Path], name: str, value: Any
) -> None:
    options = TrainOptions(tmp_path / "m.pt", (str(labelled_folder),), init=random_checkpoint(), **{name: value})
    with pytest.raises(ValueError, match=rf"--{name} is {value}, and --init .*resnet18\.pt brings"):
        train(options, "crnn train")


@pytest.mark.parametrize(
    ("name", "value"),
    [("width", float("inf")), ("width", 0.0), ("features", -1), ("linear", -1), ("column_weight", -1.0),
     ("column_weight", float("nan")), ("validation_lines", -5)],
)  # fmt: skip
def test_numbers_that_make_no_sense_are_refused_by_their_flag(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} is {value}; give"):
        TrainOptions(out=tmp_path / "m.pt", **{name: value})  # type: ignore[arg-type]


def test_a_checkpoint_can_go_on_with_another_least_width(
    tmp_path: Path, labelled_folder: Path, random_checkpoint: Callable[..., Path]
) -> None:
    start = random_checkpoint()
    changed = tiny(tmp_path / "m.pt", [labelled_folder])
    options = TrainOptions(
        out=changed.out, data=changed.data, validation="0", fit=changed.fit, init=start, min_width=64, narrow="margins"
    )
    made = load_checkpoint(train(options, "crnn train")).info
    assert (made.input_spec.min_width, made.input_spec.narrow) == (64, "margins")
    assert made.sizes == load_checkpoint(start).info.sizes


def test_what_a_checkpoint_brings_is_not_passed_over_for_what_is_usual(
    tmp_path: Path, labelled_folder: Path, random_checkpoint: Callable[..., Path]
) -> None:
    start = random_checkpoint()
    options = TrainOptions(tmp_path / "m.pt", (str(labelled_folder),), init=start, backbone="resnet101")
    with pytest.raises(ValueError, match=r"--backbone is resnet101, and --init .* brings resnet18"):
        train(options, "crnn train")
    fit = tiny(tmp_path / "m.pt", []).fit
    shared: dict[str, Any] = {"data": (str(labelled_folder),), "validation": "0", "fit": fit}
    wide = train(TrainOptions(tmp_path / "m.pt", init=start, min_width=64, narrow="margins", **shared), "crnn train")
    back = TrainOptions(tmp_path / "n.pt", init=wide, min_width=32, narrow="stretch", **shared)
    spec = load_checkpoint(train(back, "crnn train")).info.input_spec
    assert (spec.min_width, spec.narrow) == (32, "stretch")


def test_a_refused_run_leaves_the_run_file_of_the_one_before(tmp_path: Path, labelled_folder: Path) -> None:
    out = train(tiny(tmp_path / "m.pt", [labelled_folder]), "crnn train")
    before = run_path(out).read_bytes(), out.with_suffix(".log.csv").read_bytes()
    refused = tiny(out, [labelled_folder], overwrite=True)
    refused = replace(refused, fit=replace(refused.fit, until=("accuracy>0.9",)))
    with pytest.raises(ValueError, match="accuracy"):
        train(refused, "crnn train")
    assert (run_path(out).read_bytes(), out.with_suffix(".log.csv").read_bytes()) == before


def test_a_run_that_replaced_another_does_not_do_so_again_by_itself(tmp_path: Path, labelled_folder: Path) -> None:
    out = train(tiny(tmp_path / "m.pt", [labelled_folder], overwrite=True), "crnn train")
    assert json.loads(run_path(out).read_text())["options"]["overwrite"] is False


def test_places_of_synthesis_that_are_gone_are_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here.txt").write_text("here")
    kept = {"corpus": str(tmp_path / "here.txt"), "font_folders": [], "longest": 9}
    assert recorded_synthesis({"synth": kept | {"backgrounds": str(tmp_path / "gone")}}) == kept
    assert f"{tmp_path / 'gone'}, with which lines were drawn, is not there" in capsys.readouterr().err
    assert recorded_synthesis({}) == {}


def test_a_broken_picture_is_named_before_training_starts(tmp_path: Path, labelled_folder: Path) -> None:
    (labelled_folder / "images/000002.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"images/000002\.png does not begin like a picture"):
        train(tiny(tmp_path / "m.pt", [labelled_folder]), "crnn train")
    assert len(FolderLines(labelled_folder)) == 4


def counts_of(sources: Sources, charset: Charset = ASCII) -> dict[str, int]:
    counted = count_characters(sources, charset)
    return {c: n for c, n in zip(charset.characters, counted.counts, strict=True) if n}


def test_characters_of_stored_lines_are_counted_as_they_are_learnt(labelled_folder: Path) -> None:
    texts = "Milk2.50Totalbook"
    assert counts_of(sources_of([labelled_folder])) == {c: texts.count(c) for c in texts}
    lower = Charset.named("ascii", "lower")
    assert counts_of(sources_of([labelled_folder], lower), lower)["t"] == 2
    assert count_characters(sources_of([labelled_folder]), ASCII).lines == 4


def test_sources_that_are_mixed_by_weight_count_by_weight(
    labelled_folder: Path, tmp_path: Path, draw_word: Callable[[str], Picture]
) -> None:
    (tmp_path / "other").mkdir()
    cv2.imwrite(str(tmp_path / "other/a.png"), draw_word("x"))
    (tmp_path / "other/labels.tsv").write_text("a.png\tx\n")
    fits = sources_of([f"{labelled_folder}:4", f"{tmp_path / 'other'}:1"])
    assert counts_of(fits)["x"] == 1
    assert counts_of(fits)["o"] == 3
    even = sources_of([labelled_folder, tmp_path / "other"])  # 5 lines, half of them the one of "other"
    assert counts_of(even)["x"] == round(5 / 2)
    assert counts_of(even)["o"] == round(3 / 4 * 5 / 2)
    assert counts_of(even)["k"] == round(2 / 4 * 5 / 2)


def test_a_drawn_source_is_counted_by_texts_without_drawing_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "DRAWN_TEXTS", 50)
    source, _ = synthetic({}, ASCII, True, 0)
    monkeypatch.setattr(type(source), "__getitem__", None)
    texts = "".join(text or "" for text in source.texts()[:50])
    found = count_characters(Sources((source,), (1.0,), [], {}), ASCII)
    assert found.lines == 50
    assert found.counts == tuple(texts.count(c) for c in ASCII.characters)


LOSSES = ("long-tail:0.1", "centre-triplet:0.05")


def test_a_model_file_knows_the_counts_and_nothing_of_the_losses(tmp_path: Path, labelled_folder: Path) -> None:
    plain, made = tmp_path / "plain.pt", tmp_path / "m.pt"
    train(tiny(plain, [labelled_folder]), "crnn train")
    train(tiny(made, [labelled_folder], character_loss=LOSSES), "crnn train")
    checkpoints = [load_checkpoint(path) for path in (plain, made)]
    assert checkpoints[0].weights.keys() == checkpoints[1].weights.keys()
    for checkpoint in checkpoints:
        counts = dict(zip(ASCII.characters, checkpoint.info.provenance["characters"]["counts"], strict=True))
        assert (counts["o"], counts["M"], counts["z"]) == (3, 1, 0)
    header = (tmp_path / "m.log.csv").read_text().splitlines()[0].split(",")
    assert {"long-tail", "centre-triplet"} <= set(header)


def test_characters_that_no_training_line_holds_are_told(
    tmp_path: Path, labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = tiny(
        tmp_path / "m.pt", [labelled_folder], charset="chars:Milk2.50Tabe~", drop_bad=True, character_loss=LOSSES
    )
    train(options, "crnn train")
    assert "no training line holds 'Tabe~'; the character losses take the count of each as 1" in capsys.readouterr().err


def test_an_unknown_character_loss_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(ValueError, match="--character-loss 'arc-face:1' is not understood; give cross-entropy"):
        tiny(Path("m.pt"), ["nowhere.lmdb"], character_loss=("arc-face:1",))


class Interrupted(Exception):
    """Stands for a kill."""


def test_a_resumed_run_with_character_losses_ends_with_the_same_weights_bit_for_bit(
    tmp_path: Path, labelled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = FitOptions(until=("6",), batch_lines=2, accumulate=2, workers=0, warm_up=1, threads=1, save_every=2)
    whole, parts = (
        tiny(tmp_path / f"{name}.pt", [labelled_folder], character_loss=LOSSES, fit=fit) for name in ("whole", "parts")
    )
    train(whole, "crnn train")
    real, calls = fit_module._update, iter(range(100))

    def killed(*arguments: Any) -> None:
        if next(calls) == 4:
            raise Interrupted
        real(*arguments)

    monkeypatch.setattr(fit_module, "_update", killed)
    with pytest.raises(Interrupted):
        train(parts, "crnn train")
    state = load_tensors(tmp_path / "parts.resume.pt")["module"]
    assert {"objective.losses.long-tail.prototypes", "objective.losses.centre-triplet.rule.kept"} <= state.keys()
    monkeypatch.setattr(fit_module, "_update", real)
    train(replace(parts, resume=True), "crnn train")
    ended = [load_checkpoint(tmp_path / f"{name}.last.pt").weights for name in ("whole", "parts")]
    assert all(torch.equal(ended[0][name], ended[1][name]) for name in ended[0])
