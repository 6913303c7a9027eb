"""Reads with torch, in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from crnn.checkpoint import ModelInfo, load_checkpoint
from crnn.model import Crnn, available_device, parameter_count


class TorchRuntime:
    """A network in memory as a Runtime.

    Every call puts it in eval mode and leaves it there: a training loop sets its own modes again.

    path: where the network came from, for messages; nothing is read from it here.
    device: the network is moved to it; None: it stays where it is.
    """

    def __init__(self, model: Crnn, info: ModelInfo, path: Path, device: torch.device | None = None) -> None:
        self.info, self.path = info, path
        self._device = device or next(model.parameters()).device
        self._model = model.to(self._device)

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    @property
    def parameters(self) -> int:
        return parameter_count(self._model)

    def __call__(self, pictures: NDArray[np.float32], /) -> NDArray[np.float32]:
        self._model.eval()
        # TF32 keeps 10 bits of the mantissa: not the float32 that results are stated in
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            log_probs = self._model(torch.from_numpy(pictures).to(self._device)).log_probs  # (N, T, K)
        return np.asarray(log_probs.float().cpu().numpy(), dtype=np.float32)


def open_torch(path: Path, threads: int | None = None, device: str = "cpu") -> TorchRuntime:
    """The runtime of a checkpoint. threads is torch's own setting, which holds for the whole process."""
    found = available_device(device)
    checkpoint = load_checkpoint(path)
    if threads is not None:
        torch.set_num_threads(threads)
    return TorchRuntime(Crnn.from_checkpoint(checkpoint), checkpoint.info, path, found)
