"""The published comparison, made again: MAML, FOMAML and the Sharp-MAMLs on the same episodes, one page."""

from sharpmaml.reproduction.protocols import PROTOCOLS, Condition, Experiment, Protocol, Published
from sharpmaml.reproduction.running import Reproduction, reproduce

__all__ = [
    "PROTOCOLS",
    "Condition",
    "Experiment",
    "Protocol",
    "Published",
    "Reproduction",
    "reproduce",
]
