"""Batches of episodes where training wants them: on its device, in its precision, made ahead."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from sharpmaml.data.episodes import Episode, TaskSource
from sharpmaml.data.image_episodes import (
    ImageEpisodes,
    channel_tensors,
    normalized,
    shift_turns,
)

# Tasks prepared at once where they are asked for in order: their random bits are kept meanwhile.
AHEAD = 1024
AHEAD_IMAGES = 128

Fetch = Callable[[int, int], tuple[torch.Tensor, ...]]


class Feed:
    """The tasks of a source on a device, the same numbers as the source gives on the CPU.

    Images are kept on the device as uint8, those of the source's split alone, each training rotation
    as classes of their own; an episode is then a matter of indices, which travel for many
    episodes at once. Tasks without images are computed ahead in blocks.

    Memory on the device: the images of the split, Omniglot's training split (Lake) 14 MB or 55 MB with
    rotations, mini-ImageNet's 813 MB at 84x84, 203 MB at 42x42; on the CPU a split that is
    neither rotated nor shifted is copied too.

    >>> from sharpmaml.data.sinusoid import Sinusoids
    >>> tuple(Feed(Sinusoids(shots=10, queries=5)).batch(0, 25).support_x.shape)
    (25, 10, 1)

    Args:
        source: of tasks.
        device: where the tensors are wanted.
        dtype: of the floating tensors.
    """

    def __init__(
        self,
        source: TaskSource,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.source = source
        self._images: _Images | None = None
        if isinstance(source, ImageEpisodes):
            self._images = _Images(source, torch.device(device), dtype)
            self._ahead = _Ahead(self._images.draw, AHEAD_IMAGES)
        else:
            self._ahead = _Ahead(
                lambda first, count: _columns(source.batch(first, count).to(device, dtype)), AHEAD
            )

    def batch(self, first: int, count: int) -> Episode:
        """Return tasks `first` to `first + count - 1`: an `Episode` with a tasks axis in front.

        Its tensors may be views of a block that other calls return too: do not change them in place.

        Raises:
            DataError: if `first` is negative.
        """
        parts = self._ahead(first, count)
        return Episode(*parts) if self._images is None else self._images.episode(*parts)


class _Ahead:
    """Slices of blocks: a block is longer than asked for when requests follow one another."""

    def __init__(self, fetch: Fetch, ahead: int) -> None:
        self._fetch, self._many = fetch, ahead
        self._block: tuple[torch.Tensor, ...] = ()
        self._start = self._stop = self._next = 0

    def __call__(self, first: int, count: int) -> tuple[torch.Tensor, ...]:
        if not (self._start <= first and first + count <= self._stop and self._block):
            many = max(count, self._many) if first == self._next else count
            self._block = self._fetch(first, many)
            self._start, self._stop = first, first + many
        self._next = first + count
        return tuple(part.narrow(0, first - self._start, count) for part in self._block)


class _Images:
    """The images of a split on a device, and episodes by their indices."""

    def __init__(self, source: ImageEpisodes, device: torch.device, dtype: torch.dtype) -> None:
        self._source, self._device, self._dtype = source, device, dtype
        made = source.image_set
        pictures = torch.from_numpy(made.images[made.splits[source.split]]).to(device)
        if source.shift == "invert":
            pictures = 255 - pictures
        turned = [
            torch.rot90(pictures, turn + shift_turns(source.shift), (-2, -1))
            for turn in range(source.turns)
        ]
        self._instances = pictures.shape[1]
        # (classes, turns, instances, ...) in one line: `Draws.chosen` counts the first two.
        whole = turned[0] if len(turned) == 1 else torch.stack(turned, dim=1)
        self._pixels = whole.reshape(-1, int(np.prod(source.image_shape)))
        # A tensor on the device: kernels divide by a plain number by multiplying with its inverse.
        self._scale = torch.tensor(255.0, device=device)
        self._channels = channel_tensors(made, device)
        self._queries = torch.arange(source.ways, device=device).repeat_interleave(source.queries)

    def draw(self, first: int, count: int) -> tuple[torch.Tensor, ...]:
        """Return support indices, support labels and query indices, each `(count, examples)`."""
        draws, shots = self._source.draws(first, count), self._source.shots
        places = draws.chosen[..., None] * self._instances + draws.drawings
        support, query = places[..., :shots], places[..., shots:]
        parts = (support.reshape(count, -1), draws.labels, query.reshape(count, -1))
        return tuple(torch.from_numpy(part).to(self._device) for part in parts)

    def episode(self, support: torch.Tensor, labels: torch.Tensor, query: torch.Tensor) -> Episode:
        """Return the episodes that `draw` describes."""
        return Episode(
            self._look_up(support),
            labels,
            self._look_up(query),
            self._queries.repeat(len(query), 1),
        )

    def _look_up(self, places: torch.Tensor) -> torch.Tensor:
        chosen = self._pixels.index_select(0, places.flatten())
        x = chosen.to(torch.float32).div_(self._scale)
        x = x.reshape(*places.shape, *self._source.image_shape)
        return normalized(x, self._channels).to(self._dtype)


def _columns(episode: Episode) -> tuple[torch.Tensor, ...]:
    return episode.support_x, episode.support_y, episode.query_x, episode.query_y
