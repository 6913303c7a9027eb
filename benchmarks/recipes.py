"""What several benchmarks train alike."""

from __future__ import annotations

from pathlib import Path

TEACHER = Path(__file__).parent.parent / "crnn/models/teacher.pt"
SMALL = ["--backbone", "resnet18", "--width", "0.25", "--features", "128", "--hidden", "128"]
"""A quarter-width ResNet-18, as `crnn train` takes it."""
TAUGHT = ["--learning-rate", "8e-3"]
"""Of students: the default, said so that runs from before it was one are not taken for new ones."""
EASY_STEPS = 500
EASY = ["--until", str(EASY_STEPS), "--batch-lines", "16", "--synth.longest", "12", "--column-weight", "1",
        "--column-steps", "100000", "--warm-up", "50", "--final-rate", "0.5", "--validate-every", "250",
        "--validation-lines", "300"]  # fmt: skip
"""The first stage of a recogniser from nothing: short, dark on light, mildly degraded, its columns known."""
