"""`landscape hessian`: eigenvalues, trace and density, each with its proof."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from landscape import console
from landscape.cli_source import Flag, Source, Where, require_suffix

if TYPE_CHECKING:
    from landscape.curvature_report import Asked, Curvature
    from landscape.operators.recording import Recording
    from landscape.parallel import Team

KEEP = {"auto": "auto", "yes": True, "no": False}


@dataclass(frozen=True)
class Spectrum:
    """Which matrix, and what of its spectrum.

    Attributes:
        k: number of eigenvalues.
        which: LA the largest, SA the smallest, LM the largest in magnitude, BE both ends.
        method: lanczos, block (fewer passes over the data, more products), power (power iteration with
            deflation), or auto (lanczos or block, by the clock).
        tol: residual to reach, as a share of each eigenvalue's own magnitude.
        seed: of start vectors and probes.
        trace: also the trace.
        density: also the spectral density, and from it Frobenius norm, negative mass, effective dimension
            and log-determinant.
        alpha: regularization of the effective dimension and of the log-determinant.
        params: patterns of parameter names, separated by commas, such as 'blocks.*.attn.*'; one that
            begins with a minus takes away (--params=-bias); the others are held constant.
        per_layer: also the largest eigenvalue of each layer's own block.
        held_out: also the eigenvectors of each half of the data, on the other half.
        operator: hessian, ggn (generalized Gauss-Newton) or fisher (empirical).
        keep_graph: yes keeps the graphs of all batches, two gradients a product; no builds them anew,
            three; auto keeps as many as fit into half of the free memory.
        mode: reverse, forward (least memory, slower on a CPU), or auto: forward where no graph fits.
        optimizer: checkpoint with the state of the optimizer, for its edge of stability; "own" is the
            checkpoint itself.
        no_check: do not test the operator first (symmetry, linearity, repetition, differences of the
            gradient).
        max_products: bound on the products of the search.
    """

    k: Annotated[int, Parameter(name=["-k"])] = 5
    which: str = "LA"
    method: str = "lanczos"
    tol: float = 1e-3
    seed: int = 0
    trace: Flag = False
    density: Flag = False
    alpha: float = 1.0
    params: str | None = None
    per_layer: Flag = False
    held_out: Flag = False
    operator: str = "hessian"
    keep_graph: str = "auto"
    mode: str = "auto"
    optimizer: str | None = None
    no_check: Flag = False
    max_products: int | None = None

    def asked(self, checkpoint: Path, team: Team, record: Recording | None) -> Asked:
        """The same, for :func:`landscape.curvature_report.measure`."""
        from landscape.curvature_report import Asked
        from landscape.source import describes_itself, locate

        if self.keep_graph not in KEEP:
            raise ValueError(f"--keep-graph is {self.keep_graph!r}: expected auto, yes or no")
        options: dict[str, object] = {
            "kind": self.operator,
            "keep_graph": KEEP[self.keep_graph],
            "team": team,
            "record": record,
        }
        if self.params is not None:
            options["params"] = self.params
        if self.operator == "hessian":
            options["mode"] = self.mode
        where = Path(self.optimizer or "")
        if self.optimizer == "own":
            where = locate(checkpoint) if describes_itself(checkpoint) else checkpoint
        return Asked(
            k=self.k,
            which=self.which,
            method=self.method,
            tol=self.tol,
            seed=self.seed,
            trace=self.trace,
            density=self.density,
            alpha=self.alpha,
            layers=self.per_layer,
            held_out=self.held_out,
            optimizer=None if self.optimizer is None else where,
            check=not self.no_check,
            max_products=self.max_products,
            options=options,
        )


_SOURCE = Source()
_SPECTRUM = Spectrum()


def hessian(
    checkpoint: Path,
    /,
    *,
    out: Path | None = None,
    journal: Path | None = None,
    json: Flag = False,
    quiet: Flag = False,
    spectrum: Annotated[Spectrum, Parameter(name="*")] = _SPECTRUM,
    source: Where = _SOURCE,
) -> None:
    """Compute eigenvalues of the Hessian, each with its residual; on demand trace, density and more.

    Under torchrun the ranks share the data, each on its own device.

    Args:
        checkpoint: a checkpoint folder or run folder of ours, or a weights file.
        out: page (.html) with the figures and tables.
        journal: file that keeps every product as it is made: the same command continues what was interrupted,
            and removes it in the end. With --out it is PAGE.products when left out.
        json: print one JSON document instead.
        quiet: say nothing on standard error.
        spectrum: which matrix, and what of its spectrum.
        source: what the loss is a loss of.
    """
    from landscape import parallel
    from landscape.curvature_page import write
    from landscape.curvature_report import measure
    from landscape.operators.recording import recording

    if out is not None:
        require_suffix(out, ".html")
    if journal is None and out is not None:
        journal = out.with_name(f"{out.name}.products")
    team = parallel.join()
    try:
        silent = quiet or not team.leads

        def tell(words: str) -> None:
            if not silent:
                print(words, file=sys.stderr, flush=True)

        objective = source.objective(checkpoint)
        kept = recording(journal, objective, team=team, tell=tell) if journal else nullcontext()
        with kept as record:
            found = measure(objective, spectrum.asked(checkpoint, team, record), tell)
            if (
                team.leads
            ):  # before the products are thrown away, of which all of it can be made again
                if out is not None:
                    write(found, out, checkpoint.resolve().name)
                _print(found, json, out)
    finally:
        parallel.leave()
    if not team.leads:
        return
    if found.doubts:
        raise console.Untrusted(f"not converged: {'; '.join(found.doubts)}")


def _print(found: Curvature, json: bool, out: Path | None) -> None:
    from landscape.curvature_page import remarks, tables

    if json:
        console.print_json(found.document())
    else:
        for table in tables(found):
            print(table.to_text())
        for sentence in remarks(found):
            print(sentence)
        if out is not None:
            print(f"figures: {out}")
    sys.stdout.flush()
