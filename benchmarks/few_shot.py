"""Method 5 on characters that training did not see: `python -m benchmarks.few_shot`, 90 minutes of a core.

Omniglot's two minimal background sets, five alphabets each, and its twenty official runs of 20 classes with one picture
each. Crops are cut to their ink and a margin. What is chosen is chosen on two alphabets of the first set that training
then leaves out; there too, weighted descriptions are compared with plain means at five pictures a class, with and
without a picture that is of another class. Then a model of each representation is trained on each set, and every test
picture of the runs is classified alone. Every run is kept in --out, so that what was cut off goes on.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import cv2
import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from benchmarks.intervals import bootstrap_interval
from benchmarks.markdown import NOT_RUN, table
from benchmarks.stages import RESULTS, finished, run_stage, write_json
from crnn.characters.crops import squared
from crnn.characters.episodes import ClassCrops, class_crops
from crnn.characters.few_shot import FewShotModel, load_few_shot
from crnn.characters.regions import Representation
from crnn.checkpoint import write_atomically
from data.class_folders import ClassFolders

Json = dict[str, Any]
Part = Literal["choice", "omniglot", "pictures"]
PARTS: tuple[Part, ...] = ("choice", "omniglot", "pictures")

SETS, RUNS, HELD_ALPHABETS = (1, 2), 20, 2
REPRESENTATIONS: tuple[Representation, ...] = ("global", "local", "both")
MARGIN = 0.1
"""Around the ink, as a share of its longer side."""
CHOICES: dict[str, list[str]] = {
    "global": ["--representation", "global"],
    "local": ["--representation", "local"],
    "both": ["--representation", "both"],
    "global, nothing composed": ["--representation", "global", "--composed", "0"],
    "global, nothing turned": ["--representation", "global", "--no-turned"],
    "global, no classification": ["--representation", "global", "--classification", "0"],
}
SHOTS, EPISODES = 5, 200
"""Of the comparison of descriptions."""
PUBLIC = (("people", 4.5), ("BPL", 4.2), ("simple convolutional network", 23.2), ("prototypical networks", 30.1))
"""Error in per cent with minimal sets (Lake, Salakhutdinov, Tenenbaum 2019); people without any."""
AIM, WISH = 0.20, 0.15


@dataclass(frozen=True)
class FewShotOptions:
    """Options.

    Attributes:
        parts: what to run, in this order.
        data: folder with the zips of the data sets.
        out: folder of crops and runs.
        choice_steps: episodes of each run on three alphabets.
        steps: episodes of each run on five.
        threads: of each run.
    """

    parts: tyro.conf.Positional[tuple[Part, ...]] = PARTS
    data: Path = Path(os.environ.get("POCKET_CRNN_DATA", "datasets"))
    out: Path = Path("runs/few-shot")
    choice_steps: int = 700
    steps: int = 2000
    threads: int = 1


def main() -> None:
    """Runs what is not there yet; the table's JSON is written anew after every model."""
    options = tyro.cli(FewShotOptions, description=__doc__)
    torch.set_num_threads(options.threads)
    for number in SETS:
        prepare(options, number)
    for part in options.parts:
        {"choice": choice, "omniglot": omniglot, "pictures": pictures}[part](options)


def keep(part: str, content: Json) -> None:
    """Puts one part's results into docs/results/few_shot.json, beside those of the other parts."""
    path = RESULTS / "few_shot.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, before | {"command": "python -m benchmarks.few_shot", "seed": 0, part: content})


# Crops.


def prepare(options: FewShotOptions, number: int) -> None:
    """Crops of a background set in one folder a character, in one folder an alphabet."""
    folder = options.out / f"small{number}"
    if folder.exists():
        return
    made = folder.with_suffix(".part")
    with zipfile.ZipFile(options.data / f"omniglot_background_small{number}.zip") as archive:
        for name in archive.namelist():
            if name.endswith(".png"):
                alphabet, character, file = name.split("/")[-3:]
                path = made / alphabet / character / file
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), inked(decoded(archive.read(name))))
    made.rename(folder)


def decoded(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def inked(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The ink, black on white, with a margin of MARGIN of its longer side."""
    rows, columns = np.nonzero(picture[..., 0] < 128)
    cut = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    margin = round(MARGIN * max(cut.shape[:2]))
    return np.pad(cut, ((margin, margin), (margin, margin), (0, 0)), constant_values=255)


def alphabets(options: FewShotOptions, number: int) -> list[str]:
    return sorted(path.name for path in (options.out / f"small{number}").iterdir())


def official_runs(path: Path) -> Iterator[tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]], list[int]]]:
    """Support pictures, test pictures, and the support picture that each test picture is of."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        for labels in sorted(name for name in names if re.search(r"run\d+/class_labels\.txt$", name)):
            top = labels.removesuffix(labels.split("/")[-2] + "/class_labels.txt")
            rows = [row.split() for row in archive.read(labels).decode().splitlines() if row]
            support = sorted({of for _, of in rows})
            yield (
                [inked(decoded(archive.read(top + name))) for name in support],
                [inked(decoded(archive.read(top + name))) for name, _ in rows],
                [support.index(of) for _, of in rows],
            )


# Parts.


def train(options: FewShotOptions, out: Path, sources: Sequence[Path], validation: str, steps: int, more: list[str],
          seed: int = 0) -> Path:  # fmt: skip
    """A model by the command line; the folders of alphabets are its sources."""
    run_stage(
        out, "crnn",
        ["characters", "episodes", "--data", *map(str, sources), "--validation", validation, "--until", str(steps),
         "--validate-every", str(max(1, steps // 4)), "--threads", str(options.threads), "--seed", str(seed),
         "--out", str(out), *more],
    )  # fmt: skip
    return out


def choice(options: FewShotOptions) -> None:
    """Every setting on three alphabets of the first set, read on the two others; then descriptions."""
    names = alphabets(options, 1)
    held, rest = options.out / "held", options.out / "rest"
    linked(options.out / "small1", held, names[:HELD_ALPHABETS])
    linked(options.out / "small1", rest, names[HELD_ALPHABETS:])
    rows: list[Json] = []
    for name, more in CHOICES.items():
        path = train(
            options, options.out / f"choice-{name.replace(', ', '-').replace(' ', '-')}.pt", [rest], str(held),
            options.choice_steps, more,
        )  # fmt: skip
        rows.append({"setting": name, "error": 1 - read_run(path)["accuracy"]})
        keep("choice", {"held": names[:HELD_ALPHABETS], "steps": options.choice_steps, "rows": rows})
    crops = class_crops([ClassFolders(held)], load_few_shot(options.out / "choice-both.pt").info.input_spec)
    described = [
        descriptions(load_few_shot(options.out / f"choice-{name}.pt"), crops) | {"representation": name}
        for name in REPRESENTATIONS
    ]
    keep("descriptions", {"shots": SHOTS, "episodes": EPISODES, "rows": described})


def linked(source: Path, folder: Path, names: Sequence[str]) -> None:
    """A folder of some of another's folders."""
    folder.mkdir(exist_ok=True)
    for name in names:
        if not (folder / name).exists():
            (folder / name).symlink_to((source / name).resolve(), target_is_directory=True)


def read_run(path: Path) -> Json:
    """What a training reported of itself."""
    assert finished(path)
    result: Json = json.loads(path.with_suffix(".run.json").read_text(encoding="utf-8"))["result"]
    return result


def omniglot(options: FewShotOptions) -> None:
    """A model of each representation on each background set; every test picture of the runs alone."""
    for name in REPRESENTATIONS:
        for number in SETS:
            path = options.out / f"small{number}-{name}.pt"
            train(
                options, path, [options.out / f"small{number}"], "0", options.steps, ["--representation", name]
            )  # fmt: skip
            result = path.with_suffix(".runs.json")
            if not result.exists():
                content = json.dumps({"right": classified(options, load_few_shot(path)), "trained": read_run(path)})
                write_atomically(result, lambda file, text=content: file.write(text.encode()))  # type: ignore[misc]
            keep("omniglot", omniglot_results(options))


def classified(options: FewShotOptions, model: FewShotModel) -> list[list[int]]:
    """1 for each test picture of each run whose class was found, else 0."""
    found = []
    for support, tests, labels in official_runs(options.data / "omniglot_one_shot.zip"):
        described = model.support(maps_of(model, support), np.arange(len(support)), len(support))
        named = [int(model.probabilities(described, maps_of(model, [test])).argmax()) for test in tests]
        found.append([int(name == label) for name, label in zip(named, labels, strict=True)])
    return found


def maps_of(model: FewShotModel, pictures_: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    return model.maps(squared(picture, model.info.input_spec) for picture in pictures_)


def omniglot_results(options: FewShotOptions) -> Json:
    """What was run; error with its interval over the trials."""
    rows = []
    for name in REPRESENTATIONS:
        for number in SETS:
            path = options.out / f"small{number}-{name}.runs.json"
            if path.exists():
                stored = json.loads(path.read_text(encoding="utf-8"))
                wrong = [1.0 - right for run in stored["right"] for right in run]
                low, high = bootstrap_interval(wrong, 0)
                rows.append(
                    {"representation": name, "set": number, "trials": len(wrong), "error": mean(wrong),
                     "interval": [low, high], "steps": stored["trained"]["steps"],
                     "seconds": stored["trained"]["seconds"]}
                )  # fmt: skip
    return {"rows": rows}


def descriptions(model: FewShotModel, crops: ClassCrops) -> Json:
    """Error with weighted descriptions and with plain means, on the same episodes; then with one stray picture.

    20 classes of one alphabet, SHOTS support pictures each, the other pictures of each class asked; a stray picture
    takes the place of a support picture and is of a class of the same alphabet that the episode does not have.
    """
    generator = np.random.default_rng(7)
    maps = model.maps(iter(crops.squares))
    wrong: dict[str, list[list[float]]] = {"clean": [[], []], "stray": [[], []]}
    for number in range(EPISODES):
        own = generator.permutation(crops.families[number % len(crops.families)])
        ways = min(20, len(own) - 1)
        drawn = np.stack([generator.permutation(crops.members[n])[: SHOTS + 5] for n in own[:ways]])
        support, queries = drawn[:, :SHOTS].copy(), drawn[:, SHOTS:].ravel()
        labels = np.repeat(np.arange(ways), drawn.shape[1] - SHOTS)
        for kind in wrong:
            if kind == "stray":
                support[:, 0] = generator.choice(crops.members[own[-1]], ways)
            for i, weighted in enumerate((True, False)):
                model.matcher.options = replace(model.matcher.options, weighted=weighted)
                described = model.support(maps[support.ravel()], np.repeat(np.arange(ways), SHOTS), ways)
                found = model.probabilities(described, maps[queries]).argmax(1)
                wrong[kind][i].append(float((found != labels).mean()))
    rows: Json = {}
    for kind, (weighted_errors, plain) in wrong.items():
        gained = [b - a for a, b in zip(weighted_errors, plain, strict=True)]
        rows[kind] = {
            "weighted": mean(weighted_errors), "plain": mean(plain), "gained": mean(gained),
            "interval": list(bootstrap_interval(gained, 0)),
        }  # fmt: skip
    return rows


def pictures(options: FewShotOptions) -> None:
    """What the model looked at: pictures of the first official run, for their own class and for the nearest other."""
    model = load_few_shot(options.out / "small1-both.pt")
    support, tests, labels = next(official_runs(options.data / "omniglot_one_shot.zip"))
    described = model.support(maps_of(model, support), np.arange(len(support)), len(support))
    with torch.inference_mode():
        matching = model.matcher(described, maps_of(model, tests))
    rows = []
    for i, (test, label) in enumerate(zip(tests, labels, strict=True)):
        order = matching.similarity[i].argsort(descending=True).tolist()
        other = next(n for n in order if n != label)
        shown = [tile(test)]
        for number in (label, other):
            shown += [tile(support[number]), looked(test, matching.attention[i, number].numpy())]
        mark = np.full((TILE, 10, 3), (60, 170, 60) if order[0] == label else (200, 60, 60), np.uint8)
        rows.append(np.concatenate([mark, *shown], 1))
    half = len(rows) // 2
    sheet = np.concatenate(
        [np.concatenate(rows[:half]), np.full((half * TILE, 20, 3), 255, np.uint8), np.concatenate(rows[half:])], 1
    )
    content = cv2.imencode(".png", sheet[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    write_atomically(RESULTS.parent / "attention.png", lambda file: file.write(content))


TILE = 72


def tile(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    factor = (TILE - 8) / max(height, width)
    small = cv2.resize(
        picture, (max(1, round(width * factor)), max(1, round(height * factor))), interpolation=cv2.INTER_AREA
    )
    top, left = (TILE - small.shape[0]) // 2, (TILE - small.shape[1]) // 2
    made = np.full((TILE, TILE, 3), 255, np.uint8)
    made[top : top + small.shape[0], left : left + small.shape[1]] = small
    return made


def looked(picture: NDArray[np.uint8], attention: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture under its attention, blue for little to red for much; the region chosen is framed."""
    side = round(len(attention) ** 0.5)
    grid = attention.reshape(side, side)
    shares = (grid - grid.min()) / max(float(grid.max() - grid.min()), 1e-6)
    heat = cv2.resize(shares.astype(np.float32), (TILE, TILE), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    colours = np.stack([heat, 0.2 + 0 * heat, 1 - heat], -1) * 255
    made = (0.55 * tile(picture) + 0.45 * colours).astype(np.uint8)
    row, column = np.unravel_index(int(grid.argmax()), grid.shape)
    cell = TILE / side
    corners = [(round(column * cell), round(row * cell)), (round((column + 1) * cell) - 1, round((row + 1) * cell) - 1)]
    cv2.rectangle(made, corners[0], corners[1], (20, 20, 20), 1)
    return made


# What the results say.


def few_shot_table(results: Json) -> str:
    """Markdown: error on the official runs, beside public figures; and whether the aims were reached."""
    found = results.get("omniglot", {}).get("rows", [])
    if not found:
        return NOT_RUN
    rows = [
        [f"{row['representation']}, background set {row['set']}",
         f"{100 * row['error']:.1f} ({100 * row['interval'][0]:.1f} to {100 * row['interval'][1]:.1f})",
         str(row["trials"]), f"{row['steps']:,}", f"{row['seconds'] / 60:.0f}"]
        for row in found
    ]  # fmt: skip
    rows += [[name, f"{value}", "", "", ""] for name, value in PUBLIC]
    return table(["", "error %", "trials", "episodes", "minutes"], rows) + f"\n{verdicts(results or {}, found)}\n"


def verdicts(results: Json, found: Sequence[Json]) -> str:
    """Whether the aims were reached on both sets, by the representation that the held-out alphabets chose."""
    chosen = [row for row in results.get("choice", {}).get("rows", ()) if row["setting"] in REPRESENTATIONS]
    if len(chosen) < len(REPRESENTATIONS):
        return "No representation was chosen yet, so no aim is judged."
    best = min(chosen, key=lambda row: float(row["error"]))["setting"]
    errors = [row["error"] for row in found if row["representation"] == best]
    if len(errors) < len(SETS):
        return f"Held-out alphabets chose {best}, which was not run on both sets yet."
    told = " and ".join(f"{100 * error:.1f}" for error in errors)
    reached = [
        f"at most {100 * aim:.0f} %: {'reached' if max(errors) <= aim else 'not reached'}" for aim in (AIM, WISH)
    ]
    return f"Held-out alphabets chose {best}: {told} %. On both sets {', '.join(reached)}."


def choice_table(results: Json) -> str:
    """Markdown: error on held-out alphabets of each setting."""
    content = results.get("choice")
    if not content:
        return NOT_RUN
    rows = [[row["setting"], f"{100 * row['error']:.1f}"] for row in content["rows"]]
    return table([f"{content['steps']:,} episodes without {' and '.join(content['held'])}", "error there, %"], rows)


def descriptions_table(results: Json) -> str:
    """Markdown: weighted descriptions beside plain means."""
    content = results.get("descriptions")
    if not content:
        return NOT_RUN
    rows = []
    for row in content["rows"]:
        for kind, what in (("clean", "as they are"), ("stray", "one of them of another class")):
            one = row[kind]
            low, high = (100 * end for end in one["interval"])
            rows.append(
                [f"{row['representation']}, {what}", f"{100 * one['plain']:.1f}", f"{100 * one['weighted']:.1f}",
                 f"{100 * one['gained']:+.1f} ({low:+.1f} to {high:+.1f})"]
            )  # fmt: skip
    return table([f"{content['shots']} support pictures", "plain mean, error %", "weighted, error %", "gained"], rows)


if __name__ == "__main__":
    main()
