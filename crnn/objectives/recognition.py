"""What a recogniser is trained on: CTC, and cross-entropy in the columns where lines know their characters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from crnn.charset import BLANK
from crnn.model import Outputs

BLANK_WEIGHT = 0.3
"""Of a blank column beside a character's in the column loss; blanks are most of a line."""


@dataclass(frozen=True)
class DeviceBatch:
    """A batch as tensors on the model's device; see data.batches.Batch.

    pictures: float32 (N, C, H, W), scaled; classes: (N, S); lengths: (N,); columns: (N, T), -1 where it is not known;
        items: (N, 2).
    """

    pictures: Tensor
    classes: Tensor
    lengths: Tensor
    columns: Tensor
    items: Tensor


Terms = dict[str, Tensor]
"""Named scalar losses; "loss" is their weighted total and what is minimised."""


def ctc_loss(log_probs: Tensor, targets: DeviceBatch) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006), (N, T, K) -> scalar.

    Each labelled line's negative log-likelihood divided by its label's length, then the mean over labelled
    lines, as torch's "mean"; zero, with a gradient of zero, where no line is labelled.
    """
    labelled = targets.lengths > 0
    if not bool(labelled.any()):
        return log_probs.sum() * 0.0
    probs = log_probs[labelled].transpose(0, 1)  # (T, n, K)
    columns = torch.full((probs.shape[1],), probs.shape[0], dtype=torch.long, device=probs.device)
    return functional.ctc_loss(probs, targets.classes[labelled], columns, targets.lengths[labelled], blank=BLANK)


def column_loss(log_probs: Tensor, targets: DeviceBatch) -> Tensor:
    """Cross-entropy of the columns whose character is known, (N, T, K) -> scalar; zero where none is."""
    known = targets.columns >= 0
    if not bool(known.any()):
        return log_probs.sum() * 0.0
    classes = targets.columns[known]
    weights = torch.where(classes == BLANK, BLANK_WEIGHT, 1.0)
    picked = log_probs[known].gather(1, classes[:, None])[:, 0]
    return -(picked * weights).sum() / weights.sum()


class Recognition(nn.Module):
    """CTC, plus the column-aligned auxiliary loss that ends the plateau of blanks.

    The auxiliary part is cross-entropy in the columns that lines know (synthesis does, real lines do not), on
    the classifier and on a second classifier straight on the backbone's features, which has CTC too. It fades
    linearly from column_weight to 0 over fade_steps. The second classifier belongs to training alone.
    """

    def __init__(self, features: int, classes: int, column_weight: float = 0.0, fade_steps: int = 1) -> None:
        super().__init__()
        self.column_weight = column_weight
        self.fade_steps = fade_steps
        self.second_classifier = nn.Linear(features, classes) if column_weight else None

    def weight(self, step: int) -> float:
        """Of the auxiliary part at a step."""
        return self.column_weight * max(0.0, 1 - step / max(1, self.fade_steps))

    def forward(self, outputs: Outputs, targets: DeviceBatch, step: int) -> Terms:
        ctc = ctc_loss(outputs.log_probs, targets)
        weight = self.weight(step)
        if self.second_classifier is None or weight == 0:
            return {"loss": ctc, "ctc": ctc}
        with torch.autocast(outputs.features.device.type, enabled=False):  # in float32, as the model's own classifier
            second = self.second_classifier(outputs.features.float()).log_softmax(-1)  # (N, T, K)
        columns = column_loss(outputs.log_probs, targets) + column_loss(second, targets)
        second_ctc = ctc_loss(second, targets)
        total = ctc + weight * (columns + 0.5 * second_ctc)
        return {"loss": total, "ctc": ctc, "columns": columns, "second_ctc": second_ctc}
