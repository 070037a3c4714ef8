"""One small trained run of images and one of sinusoids, shared by the tests that read checkpoints."""

import pytest

from sharpmaml.config import TrainConfig
from sharpmaml.training import train

TINY_IMAGES = TrainConfig(
    data="strokes", data_options={"alphabets": 4}, ways=3, queries=2, iterations=20, meta_batch=2,
    checkpoint_every=20, validate_every=20, validation_episodes=2, channels=4, downsample="stride", device="cpu",
)  # fmt: skip
TINY_SINE = TrainConfig(
    data="sinusoid", shots=5, queries=5, iterations=4, meta_batch=2, checkpoint_every=2, validate_every=2,
    validation_episodes=2, inner_rate=0.01, test_steps=1, channels=4, device="cpu",
)  # fmt: skip


@pytest.fixture(scope="session")
def images_run(tmp_path_factory):
    return train(TINY_IMAGES, tmp_path_factory.mktemp("images") / "run").path


@pytest.fixture(scope="session")
def sine_run(tmp_path_factory):
    return train(TINY_SINE, tmp_path_factory.mktemp("sine") / "run").path
