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
        model: package.module:factory or file.py:factory, with literal arguments such as
            file.py:factory(width=16); cifar:resnet20, cifar:resnet56-noshort; torchvision:NAME, timm:NAME
            (classes are read off the checkpoint); hf:FOLDER with a config.json (other checkpoints).
        data: .npz, .pt or .safetensors file with x and y (images and labels, tokens); folder with one
            subfolder of pictures a class; cifar10, strokes, glyphs or omniglot; or a factory of (x, y)
            batches (other checkpoints).
        loss: torch.nn.functional name, logit_normalized_cross_entropy, next_token (language models), or
            package.module:function or file.py:function of (output, y) (other checkpoints).
        examples: how many examples, a fixed subset; 0 for all; 1024 when left out (files and sets).
        batch_size: examples a call of the network; 128 when left out, all with --norm batch.
        standardize: images by channel: cifar10, imagenet, li2018, none, or means and standard deviations of the
            channels, such as 0.5,0.5,0.5,0.25,0.25,0.25.
        image_size: resize the shorter side of pictures to it and cut out the middle (folders).
        key: entry of the file that holds the weights, when it is not the one found.
        allow: class that a pickled file may hold beside tensors, such as package.module.Class; may be
            repeated.
        trust_pickle: read a pickled file that could run code; only for files you made yourself.
        norm: batch-norm statistics: eval, batch or recalibrate (other checkpoints).
        episodes: number of tasks of a meta objective.
        episode_seed: seed of those tasks.
        part: train, val or test: classes of a meta objective's tasks (test when left out), or part of
            the data of other checkpoints (train when left out).
        data_root: where the data set lies: of a built-in set, or of our checkpoint when it has moved since
            training.
        dtype: float32, float64 or bfloat16 (the network runs in bfloat16, its parameters stay float32);
            the checkpoint's own when left out.
        device: auto, cpu, cuda or cuda:N.
    """

    model: str | None = None
    data: str | None = None
    loss: str = "cross_entropy"
    examples: int | None = None
    batch_size: int | None = None
    standardize: str | None = None
    image_size: int | None = None
    key: str | None = None
    allow: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    trust_pickle: Flag = False
    norm: str = "eval"
    episodes: int = 64
    episode_seed: int = 0
    part: Annotated[str | None, Parameter(name="split")] = None
    data_root: Path | None = None
    dtype: str | None = None
    device: str = "auto"

    @property
    def split(self) -> str:
        """The classes of a meta objective's tasks."""
        return self.part or "test"

    def objective(self, checkpoint: Path) -> Objective:
        """The objective of a checkpoint."""
        from landscape import source as sources
        from landscape.parallel import local_device

        if self.dtype not in (None, "float32", "float64", "bfloat16"):
            raise ValueError(f"--dtype is {self.dtype!r}: expected float32, float64 or bfloat16")
        if self.part not in (None, "train", "val", "test"):
            raise ValueError(f"--split is {self.part!r}: expected train, val or test")
        device = local_device(self.device)
        schema = sources.describes_itself(checkpoint)
        if schema is None:
            return self._of_data(checkpoint, device)
        if self.dtype == "bfloat16":
            raise ValueError("--dtype bfloat16 is for other checkpoints: a meta loss needs float32")
        self._leave_out(checkpoint)
        return sources.meta_provider(schema)(
            checkpoint,
            episodes=self.episodes,
            seed=self.episode_seed,
            dtype=self.dtype,
            split=self.split,
            data_root=self.data_root,
            device=device,
        )

    def _of_data(self, checkpoint: Path, device: str) -> Objective:
        from landscape import source as sources
        from landscape.datasets import Reading

        return sources.data_objective(
            checkpoint,
            self.model,
            self.data,
            self.loss,
            self.norm,
            self.dtype,
            device,
            reading=Reading(
                self.part, self.examples, self.standardize, self.image_size, self.data_root
            ),
            batch_size=self.batch_size,
            key=self.key,
            allow=self.allow,
            trust_pickle=self.trust_pickle,
        )

    def _leave_out(self, checkpoint: Path) -> None:
        """ValueError when a flag was given that says nothing about a checkpoint of ours."""
        if self.model is not None or self.data is not None:
            raise ValueError(
                f"{checkpoint} names its own network and data: leave out --model and --data"
            )
        given = [
            flag.replace("_", "-")
            for flag in (
                "examples", "batch_size", "standardize", "image_size", "key", "allow", "trust_pickle",
            )
            if getattr(self, flag)
        ]  # fmt: skip
        if given:
            raise ValueError(
                f"--{given[0]} is for other checkpoints: {checkpoint} describes its own data and weights"
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


def require_suffix(out: Path, suffix: str, flag: str = "--out") -> None:
    """ValueError unless ``out``, which was given with the flag, has the suffix."""
    if out.suffix != suffix:
        raise ValueError(f"{flag} is {str(out)!r}: expected a name ending in {suffix}")
