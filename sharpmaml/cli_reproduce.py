"""`sharpmaml reproduce`: the published comparison, made again, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from landscape import console


def reproduce(
    name: str,
    /,
    *,
    out: Path,
    seeds: int = 3,
    budget: float | None = None,
    data_root: Path | None = None,
    device: str = "auto",
    jobs: int = 1,
    size: str | None = None,
    experiments: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    alpha: float | None = None,
    executor: str = "auto",
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Train MAML, FOMAML and the Sharp-MAMLs on the same episodes, measure all of them, write one page.

    Writes OUT/index.html, results.json, table.csv, table.tex and summary.md. The same command continues after
    an interruption; with a larger --budget, or none, training goes on to more meta-updates.

    Args:
        name: omniglot, miniimagenet or sinusoid.
        out: folder; what is already in it is continued.
        seeds: how many: each gives every method the same weights and the same episodes.
        budget: minutes for everything, about; left out: the whole protocol.
        data_root: where the data set lies.
        device: auto, cpu, cuda or cuda:N.
        jobs: runs side by side, one process and one thread each.
        size: published settings, or small ones for a CPU; by default small on a CPU.
        experiments: some of the experiments alone, such as 5-way-1-shot.
        alpha: radius of both levels, instead of the protocol's.
        executor: of training: auto, loop, vmap, adjoint, stacked or compile (long sinusoid runs are faster with it).
        quiet: no progress on standard error.
    """
    from sharpmaml.reproduction import reproduce as run
    from sharpmaml.reproduction.answers import answers
    from sharpmaml.reproduction.protocols import protocol_of
    from sharpmaml.reproduction.running import with_experiments

    protocol = protocol_of(name)
    if experiments:
        protocol = with_experiments(protocol, experiments)
    done = run(
        name, out, seeds=seeds, budget=budget, data_root=data_root, device=device, jobs=jobs, size=size,
        alpha=alpha, executor=executor, quiet=quiet, protocol=protocol,
    )  # fmt: skip
    print("\n\n".join(answers(done.findings)))
    print(f"\nDone in {done.seconds / 60:.1f} minutes. Open {done.page}")
    if doubts := [*done.findings.failures(), *done.findings.unconverged()]:
        raise console.Untrusted("; ".join(doubts))
