"""From an LMDB of JPEGs to batches, beside the usual Dataset: `python -m benchmarks.loading_speed`, minutes.

Three ways read the same lines of two real training sets side by side: ours, and a Dataset as text-recognition
repositories write it, with Pillow and with OpenCV. They take turns round by round, with the same number of workers, and
each ends at float32 pictures of -1 to 1 and padded class numbers in the process that trains. None alters a picture.
Also: what decoding at a reduced scale changes, and how long a training step waits for its data.
"""

from __future__ import annotations

import io
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.markdown import table
from benchmarks.stages import RESULTS, write_json
from crnn.backbones import PIXELS_PER_COLUMN
from crnn.charset import NAMED_CHARSETS, Charset
from crnn.checkpoint import CrnnSizes, load_checkpoint
from crnn.fit import on_device
from crnn.model import Crnn, read_lines
from crnn.objectives.recognition import Recognition
from crnn.train import degraded
from data.batches import REDUCED_HEIGHT, Batching, Stream, Windows, iterate
from data.lines import Line, open_lines
from data.picture import InputSpec, decode_shared, natural_width, resize

SETS = ("iiit5k_train", "sroie_train")
HEIGHT, BATCH, WINDOW = 32, 32, 1024
WAYS = ("ours", "pillow", "opencv")
USUAL = "bicubic resize to 32 x W, ToTensor, normalise; collate pads right; no augmentation"
WHAT = {
    "ours": "data.batches.iterate: OpenCV decode, INTER_AREA or INTER_LINEAR to one width a batch; no augmentation, "
    "stretch or margins; bytes become float32 in the training process (crnn.fit.on_device)",
    "pillow": f"torch Dataset: Pillow decode, convert RGB, {USUAL}",
    "opencv": f"torch Dataset: OpenCV decode, BGR to RGB, {USUAL}",
}


@dataclass(frozen=True)
class ReadingOptions:
    """Options.

    Attributes:
        data: folder with the zips of the real sets.
        out: folder for the LMDBs that are imported from them.
        workers: numbers of worker processes to measure with; 0 loads in the training process.
        rounds: turns each way gets with each number of workers.
        windows: of 1024 lines that are timed in a turn; even, so that two workers end together.
        model: a trained model that reads tall crops decoded whole and reduced; the shipped teacher where not given.
        steps: training steps that are watched for waiting; 0 for none.
    """

    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    out: Path = Path("runs/loading-speed")
    workers: tuple[int, ...] = (0, 1, 2)
    rounds: int = 5
    windows: int = 6
    model: Path = Path(__file__).parent.parent / "crnn/models/teacher.pt"
    steps: int = 100


class UsualLines(Dataset[tuple[Tensor, str]]):
    """An LMDB as the usual repositories read it: one item a line, opened on first use in each worker.

    decode: bytes -> uint8 (32, W, 3), W by the aspect.
    """

    def __init__(self, paths: Sequence[Path], items: Sequence[tuple[int, int]], decode: Callable[[bytes], Any]) -> None:
        self.paths, self.items, self.decode = paths, items, decode
        self.environments: list[Any] = []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> tuple[Tensor, str]:
        if not self.environments:
            self.environments = [
                lmdb.open(str(path), readonly=True, lock=False, readahead=False, meminit=False) for path in self.paths
            ]
        source, index = self.items[position]
        with self.environments[source].begin(write=False) as transaction:
            label = transaction.get(b"label-%09d" % (index + 1)).decode("utf-8")
            encoded = transaction.get(b"image-%09d" % (index + 1))
        tensor = torch.from_numpy(self.decode(encoded)).permute(2, 0, 1).contiguous().float().div_(255)
        return tensor.sub_(0.5).div_(0.5), label


def pillow_picture(encoded: bytes) -> NDArray[np.uint8]:
    """As Datasets with Pillow do."""
    picture = Image.open(io.BytesIO(encoded)).convert("RGB")
    width = int(np.ceil(HEIGHT * picture.width / picture.height))
    return np.array(picture.resize((width, HEIGHT), Image.Resampling.BICUBIC))


def opencv_picture(encoded: bytes) -> NDArray[np.uint8]:
    """As Datasets with OpenCV do."""
    picture: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    width = int(np.ceil(HEIGHT * picture.shape[1] / picture.shape[0]))
    resized: NDArray[np.uint8] = cv2.resize(picture, (width, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return resized


@dataclass(frozen=True)
class RightPadding:
    """Lines -> float32 (N, 3, 32, widest), padded on the right by the last column, with class numbers and lengths."""

    charset: Charset

    def __call__(self, lines: list[tuple[Tensor, str]]) -> tuple[Tensor, Tensor, Tensor]:
        widest = max(tensor.shape[2] for tensor, _ in lines)
        pictures = torch.empty(len(lines), 3, HEIGHT, widest)
        for row, (tensor, _) in enumerate(lines):
            pictures[row, :, :, : tensor.shape[2]] = tensor
            pictures[row, :, :, tensor.shape[2] :] = tensor[:, :, -1:]
        encoded = [self.charset.encode(text) for _, text in lines]
        targets = torch.zeros(len(lines), max(map(len, encoded)), dtype=torch.long)
        for row, classes in enumerate(encoded):
            targets[row, : len(classes)] = torch.tensor(classes)
        return pictures, targets, torch.tensor([len(classes) for classes in encoded])


def main() -> None:
    """Imports the sets, times the ways, and writes the JSON."""
    options = tyro.cli(ReadingOptions, description=__doc__)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    paths = [imported(options, name) for name in SETS]
    windows, copies = make_windows(paths), [copied(path) for path in paths]
    content: dict[str, Any] = {
        "command": "python -m benchmarks.loading_speed",
        "sets": {name: len(source.texts()) for name, source in zip(SETS, windows.stream.sources, strict=True)},
        "what": WHAT,
        "lines_a_turn": options.windows * WINDOW,
        "rows": [row for workers in options.workers for row in timed(windows, copies, workers, options)],
        "reduced": [reduced(path, name, options.model) for path, name in zip(paths, SETS, strict=True)],
    }
    if options.steps:
        content["waiting"] = [
            waiting(windows, workers, augment, options.steps) for workers in (0, 1) for augment in (False, True)
        ]
    write_json(RESULTS / "loading_speed.json", content)


def imported(options: ReadingOptions, name: str) -> Path:
    """The LMDB of a set, made by our own importer unless it is there."""
    path = options.out / f"{name}.lmdb"
    if not path.exists():
        source = str(options.data / f"{name}.zip")
        subprocess.run([sys.executable, "-m", "crnn", "data", "import", source, "--out", str(path)], check=True)
    return path


def copied(path: Path) -> Path:
    """The same LMDB elsewhere: a process opens a file once, and a Dataset opens its own."""
    copy = path.with_name(f"{path.stem}.copy.lmdb")
    shutil.copytree(path, copy, dirs_exist_ok=True)
    return copy


def make_windows(paths: Sequence[Path]) -> Windows:
    """Ours: every line of the sets once before any again, nothing altered."""
    sources = tuple(open_lines(path) for path in paths)
    charset = Charset.from_texts([NAMED_CHARSETS["ascii"]])
    stream = Stream(sources, tuple(float(len(source)) for source in sources), 0)
    batching = Batching(BATCH, WINDOW, stretch=1.0, margins=0.0, pixels_per_column=PIXELS_PER_COLUMN)
    return Windows(stream, InputSpec(), charset.encode, charset.normalise, batching)


def timed(windows: Windows, paths: Sequence[Path], workers: int, options: ReadingOptions) -> list[dict[str, Any]]:
    """One row a way: lines per second of every round, and how many times as fast ours was in the same round."""
    turns: dict[str, list[Turn]] = {way: [] for way in WAYS}
    for number in range(options.rounds):
        for step in range(len(WAYS)):
            way = WAYS[(number + step) % len(WAYS)]
            walk = ours(windows, workers) if way == "ours" else usual(way, windows, paths, workers, options.windows)
            turns[way].append(clocked(walk, options.windows))
        print(workers, {way: round(own[-1].rate) for way, own in turns.items()}, flush=True)
    rows = []
    for way, own in turns.items():
        row: dict[str, Any] = {"way": way, "workers": workers, "lines_per_second": summary([turn.rate for turn in own])}
        pairs = list(zip(turns["ours"], own, strict=True))
        row["ours_is_faster_by"] = summary([our.rate / turn.rate for our, turn in pairs])
        if not workers:  # what the processor did, whatever else the machine was busy with
            row["cpu_microseconds_a_line"] = summary([turn.cpu for turn in own])
            row["ours_takes_less_cpu_by"] = summary([turn.cpu / our.cpu for our, turn in pairs])
        rows.append(row)
        print(row, flush=True)
    return rows


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and spread; ratios are of one round, so that what slows the machine down for a while is on both sides."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


@dataclass(frozen=True)
class Turn:
    """rate: lines per second of wall clock; cpu: microseconds a line of this process, without its workers."""

    rate: float
    cpu: float


def clocked(walk: Iterator[tuple[int, int]], count: int) -> Turn:
    """Times count windows of a walk of (window, lines of a batch) in full swing.

    The clock starts at the first batch of window 2 and stops at the first one count windows on, when the workers'
    queues stand as they did: start-up is in nobody's time, and nobody has a supply that was made before. ValueError
    where the walk ends before.
    """
    lines, wall, cpu = 0, 0.0, 0.0
    for window, size in walk:
        if window >= 2 + count:
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            return Turn(lines / wall, 1e6 * cpu / lines)
        if window >= 2:
            if not lines:
                wall, cpu = time.perf_counter(), time.process_time()
            lines += size
    raise ValueError(f"the walk ended after {lines} lines of {count} windows; give fewer --windows")


def ours(windows: Windows, workers: int) -> Iterator[tuple[int, int]]:
    """Our batches, each brought to float32 as a training step gets it."""
    for window, _, batch in iterate(windows, workers):
        on_device(batch, windows.spec, torch.device("cpu"))
        yield window, len(batch)


def usual(way: str, windows: Windows, paths: Sequence[Path], workers: int, count: int) -> Iterator[tuple[int, int]]:
    """A Dataset's batches: the same lines window by window, in random order."""
    generator = np.random.default_rng(0)
    items: list[tuple[int, int]] = []
    for number in range(count + 4):
        window = windows.stream.window(number, WINDOW)
        items += [window[i] for i in generator.permutation(len(window))]
    charset = Charset.from_texts([NAMED_CHARSETS["ascii"]])
    lines = UsualLines(paths, items, pillow_picture if way == "pillow" else opencv_picture)
    loader: Any = DataLoader(
        lines, BATCH, num_workers=workers, collate_fn=RightPadding(charset), worker_init_fn=_one_thread
    )
    done = 0
    for pictures, _, _ in loader:
        yield done // WINDOW, len(pictures)
        done += len(pictures)


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)


def reduced(path: Path, name: str, model: Path, enlarged: Sequence[int] = (1, 2, 4)) -> dict[str, Any]:
    """What decoding at a reduced scale changes and saves, on crops of twice the model's height and more.

    The sets hold no crop higher than 64 pixels, so taller ones are these enlarged (bicubic, JPEG of quality 88):
    enlarged 1 is decoded at the model's own height, the others at the heights that Windows asks for.
    """
    checkpoint = load_checkpoint(model)
    network, charset, spec = Crnn.from_checkpoint(checkpoint), checkpoint.info.charset, checkpoint.info.input_spec
    source = open_lines(path)
    tall = [i for i, (height, _) in enumerate(source.sizes()) if height >= 2 * spec.height]
    stored = [source.entry(i) for i in tall]
    rows = []
    for factor in enlarged:
        encoded = [entry.encoded if factor == 1 else enlarge(entry.encoded, factor) for entry in stored]
        least = spec.height if factor == 1 else REDUCED_HEIGHT * spec.height
        whole = [
            Line(decode_shared(e, entry.key), entry.text, entry.key) for e, entry in zip(encoded, stored, strict=True)
        ]
        small = [
            replace(line, picture=decode_shared(e, line.key, least)) for e, line in zip(encoded, whole, strict=True)
        ]
        differences, readings = [], []
        for a, b in zip(whole, small, strict=True):
            width = natural_width(a.picture.shape[0], a.picture.shape[1], spec)
            pair = [resize(line.picture, spec, width) for line in (a, b)]
            differences.append(np.abs(pair[0].astype(np.int16) - pair[1]).mean())
            readings.append((replace(a, picture=pair[0]), replace(b, picture=pair[1])))
        read = [read_lines(network, lines, charset, spec) for lines in zip(*readings, strict=True)]
        texts = [charset.normalise(line.text or "").lower() for line in whole]
        right = [[r.text.lower() == text for r, text in zip(some, texts, strict=True)] for some in read]
        rows.append({
            "height": factor * 64,
            "decoded_height": int(np.median([line.picture.shape[0] for line in small])),
            "lines": len(whole),
            "grey_levels": float(np.mean(differences)),
            "readings_changed": sum(a.text != b.text for a, b in zip(*read, strict=True)),
            "right_whole": sum(right[0]),
            "right_reduced": sum(right[1]),
            "microseconds_whole": cost(encoded, 0, spec),
            "microseconds_reduced": cost(encoded, least, spec),
        })  # fmt: skip
        print(name, rows[-1], flush=True)
    return {"set": name, "rows": rows}


def enlarge(encoded: bytes, factor: int) -> bytes:
    """The JPEG of a picture so many times as high and wide."""
    picture: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    tall = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", tall, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()


def cost(encoded: Sequence[bytes], least_height: int, spec: InputSpec) -> float:
    """Microseconds of CPU a line to decode and resize; the best of three passes."""
    passes = []
    for _ in range(3):
        started = time.process_time()
        for some in encoded:
            resize(decode_shared(some, "a line", least_height), spec)
        passes.append(time.process_time() - started)
    return 1e6 * min(passes) / len(encoded)


def waiting(windows: Windows, workers: int, augment: bool, steps: int) -> dict[str, Any]:
    """How long a step of a quarter-width ResNet-18 waits for its batch, after a tenth as many steps to warm up."""
    if augment:
        batching = replace(windows.batching, stretch=1.1, margins=0.2)  # as crnn train
        windows = replace(windows, batching=batching, augment=degraded)
    torch.manual_seed(0)
    classes = Charset.from_texts([NAMED_CHARSETS["ascii"]]).classes
    sizes = CrnnSizes("resnet18", 0.25, 512, 256, 2, True, 0, classes)  # the rest as crnn train has it
    model = Crnn(sizes).to(memory_format=torch.channels_last)
    objective = Recognition(sizes.features, sizes.classes, 0.0, 1)
    optimiser = torch.optim.AdamW(model.parameters())
    waits, trained, lines = [], [], 0
    batches = iterate(windows, workers)
    for step in range(steps + steps // 10):
        started = time.perf_counter()
        batch = next(batches)[2]
        arrived = time.perf_counter()
        on = on_device(batch, windows.spec, torch.device("cpu"))
        terms = objective(model(on.pictures), on, step)
        terms["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        if step >= steps // 10:
            waits.append(arrived - started)
            trained.append(time.perf_counter() - arrived)
            lines += len(batch)
    share = sum(waits) / (sum(waits) + sum(trained))
    row = {
        "workers": workers,
        "augment": augment,
        "steps": steps,
        "waiting_share": share,
        "milliseconds_a_step": 1e3 * (sum(waits) + sum(trained)) / steps,
        "lines_per_second": lines / (sum(waits) + sum(trained)),
    }
    print(row, flush=True)
    return row


def reading_table(results: dict[str, Any]) -> str:
    """Ours beside the usual Datasets, by number of workers."""
    rows = []
    for workers in dict.fromkeys(row["workers"] for row in results["rows"]):
        of = {row["way"]: row for row in results["rows"] if row["workers"] == workers}
        speeds = [f"{of[way]['lines_per_second']['median']:,.0f}" for way in ("ours", "pillow", "opencv")]
        rows.append(
            [f"{workers}, lines/s", *speeds, *(_spread(of[w]["ours_is_faster_by"]) for w in ("pillow", "opencv"))]
        )
        if "cpu_microseconds_a_line" in of["ours"]:
            costs = [f"{of[way]['cpu_microseconds_a_line']['median']:.0f} µs" for way in ("ours", "pillow", "opencv")]
            ratios = [_spread(of[way]["ours_takes_less_cpu_by"]) for way in ("pillow", "opencv")]
            rows.append([f"{workers}, CPU a line", *costs, *ratios])
    return table(["workers", "ours", "Pillow", "OpenCV", "ours : Pillow", "ours : OpenCV"], rows)


def _spread(of: dict[str, Any]) -> str:
    return f"**{of['median']:.1f}** ({of['least']:.1f} to {of['most']:.1f})"


def reduced_scale_table(results: dict[str, Any]) -> str:
    """JPEGs decoded at a part of their size beside whole."""
    rows = [
        [f"{part['set']}, {row['lines']}", str(row["height"]), str(row["decoded_height"]), f"{row['grey_levels']:.1f}",
         str(row["readings_changed"]), f"{row['right_whole']} / {row['right_reduced']}",
         f"{row['microseconds_whole']:,.0f} -> {row['microseconds_reduced']:,.0f}"]
        for part in results["reduced"] for row in part["rows"]
    ]  # fmt: skip
    header = [
        "set, lines", "stored height", "decoded height", "mean difference, grey levels", "readings changed",
        "right whole / reduced", "decode and resize, µs",
    ]  # fmt: skip
    return table(header, rows)


def waiting_table(results: dict[str, Any]) -> str:
    """What share of a training step waits for its batch."""
    rows = [
        [str(row["workers"]), "as `crnn train`" if row["augment"] else "off", f"{row['lines_per_second']:.0f}",
         f"{100 * row['waiting_share']:.1f} %"]
        for row in results["waiting"]
    ]  # fmt: skip
    return table(["workers", "augmentation", "lines/s", "share of a step spent waiting for its batch"], rows)


if __name__ == "__main__":
    main()
