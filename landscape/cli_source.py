"""What the loss is a loss of: the flags that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from landscape.directions import Plane
    from landscape.objective import Objective

Flag = Annotated[bool, Parameter(negative="")]


@dataclass(frozen=True)
class Source:
    """What the loss is a loss of. Our own checkpoints need none of it; other files need model and data.

    Attributes:
        model: package.module:factory or file.py:factory of the network (other checkpoints).
        data: .npz file with arrays x and y, or a factory of (x, y) batches (other checkpoints).
        loss: torch.nn.functional name, or package.module:function or file.py:function of
            (output, y) (other checkpoints).
        norm: batch-norm statistics: eval, batch or recalibrate (other checkpoints).
        episodes: number of tasks of a meta objective.
        episode_seed: seed of those tasks.
        split: classes of those tasks: train, val or test.
        data_root: where the data set lies, when it has moved since training.
        dtype: float32, float64 or bfloat16 (the network runs in bfloat16, its parameters stay float32);
            the checkpoint's own when left out.
        device: auto, cpu, cuda or cuda:N.
    """

    model: str | None = None
    data: str | None = None
    loss: str = "cross_entropy"
    norm: str = "eval"
    episodes: int = 64
    episode_seed: int = 0
    split: str = "test"
    data_root: Path | None = None
    dtype: str | None = None
    device: str = "auto"

    def objective(self, checkpoint: Path) -> Objective:
        """The objective of a checkpoint."""
        from landscape import source as sources
        from landscape.parallel import local_device

        if self.dtype not in (None, "float32", "float64", "bfloat16"):
            raise ValueError(f"--dtype is {self.dtype!r}: expected float32, float64 or bfloat16")
        device = local_device(self.device)
        schema = sources.describes_itself(checkpoint)
        if schema is None:
            return sources.data_objective(
                checkpoint, self.model, self.data, self.loss, self.norm, self.dtype, device
            )
        if self.dtype == "bfloat16":
            raise ValueError("--dtype bfloat16 is for other checkpoints: a meta loss needs float32")
        if self.model is not None or self.data is not None:
            raise ValueError(
                f"{checkpoint} names its own network and data: leave out --model and --data"
            )
        return sources.meta_provider(schema)(
            checkpoint,
            episodes=self.episodes,
            seed=self.episode_seed,
            dtype=self.dtype,
            split=self.split,
            data_root=self.data_root,
            device=device,
        )


Where = Annotated[Source, Parameter(name="*")]


def random_plane(
    objective: Objective,
    normalize: str,
    ignore: str,
    seed: int,
    axes: int,
    orthogonal: bool = False,
) -> Plane:
    """The plane that flags ask for; ``ignore`` holds roles separated by commas, or ``none``."""
    from landscape import directions

    roles = [word.strip() for word in ignore.split(",")]
    return directions.random_plane(
        objective,
        normalize=normalize,
        ignore=[role for role in roles if role not in ("", "none")],
        seed=seed,
        axes=axes,
        orthogonal=orthogonal,
    )


def require_suffix(out: Path, suffix: str) -> None:
    """ValueError unless ``out`` has the suffix."""
    if out.suffix != suffix:
        raise ValueError(f"--out is {str(out)!r}: expected a name ending in {suffix}")
