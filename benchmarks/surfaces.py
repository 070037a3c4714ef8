"""What a point of a loss surface costs: ours against each peer and against the limit, in one run.

    python benchmarks/surfaces.py [--peers PEERS/bin/python] [--nets mlp,conv4,...] [--executors NAME,...]

Processor seconds of one grid point on one thread, median of the rounds, each tool in a process of its own, one
after the other, the whole round repeated so that a change of the machine's speed hits all of them. The
limit is the forward pass' multiplications and additions over the rate of a 1536 x 1536 float32 matrix
product (best of five in each round, median of the rounds). Peers need an environment of their own
(``benchmarks/peers.txt``). Markdown on standard output.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nets
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

HERE = Path(__file__).parent
PEERS = (
    "loss-landscapes",
    "landscaper",
    "loss-landscape-3d",
    "losscape",
    "pylandscape",
    "reference",
)
POINTS = {"mlp": 192, "conv4": 24, "resnet20": 6, "resnet56": 4, "transformer": 16}


def ours(net: str, executor: str) -> dict[str, Any]:
    """Processor seconds a point of one of our executors, set-up left out (it is paid once)."""
    from landscape.choice import choose
    from landscape.data_objective import DataObjective
    from landscape.directions import random_plane

    torch.set_num_threads(1)
    model, x, y = nets.build(net)
    objective = DataObjective(model, (x, y))
    plane = random_plane(objective, seed=0)
    axis = np.linspace(-1, 1, POINTS[net])
    places = np.stack([axis, axis[::-1] * 0.7], 1)
    with torch.no_grad():
        model(x[:128])
    forward = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.process_time()
    evaluator = choose(objective, plane, places, executor).evaluator
    setup = time.process_time() - start
    evaluator(places[:2])
    start = time.process_time()
    evaluator(places)
    seconds = (time.process_time() - start) / len(places)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "setup": setup, "forward_mb": forward, "peak_mb": peak}


def gemm_rate() -> float:
    """Floating-point operations a second of a float32 matrix product on one thread, best of five."""
    torch.set_num_threads(1)
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    best = 0.0
    for _ in range(5):
        start = time.process_time()
        a @ b
        best = max(best, 2 * 1536**3 / (time.process_time() - start))
    return best


def flops(net: str) -> float:
    """Multiplications and additions of one forward pass over all examples."""
    model, x, _ = nets.build(net)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x[:2])
    return counter.get_total_flops() / 2 * len(x)


def measured(python: str, *words: str) -> dict[str, Any] | None:
    """What a child process prints as JSON in its last line; None where it fails."""
    environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    done = subprocess.run([python, *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"{' '.join(words)}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def table(net: str, executors: list[str], peers: str | None, rounds: int) -> None:
    """One round after the other of everything on one network, then its rows."""
    rows: dict[str, list[float]] = {}
    details: dict[str, dict[str, Any]] = {}
    rates = []
    for _ in range(rounds):
        rates.append(gemm_rate())
        for executor in executors:
            found = measured(sys.executable, __file__, "--ours", net, executor)
            if found is not None:
                rows.setdefault(f"**ours, {executor}**", []).append(found["seconds"])
                details[f"**ours, {executor}**"] = found
        for peer in PEERS if peers else ():
            found = measured(str(peers), str(HERE / "peers.py"), "cost", peer, net)
            if found is not None:
                rows.setdefault(peer, []).append(found["seconds_per_point"])
                details[peer] = {"peak_mb": found["peak_rss_mb"], "version": found["version"]}
    speed = statistics.median(rates)
    limit = flops(net) / speed
    medians = {name: statistics.median(times) for name, times in rows.items()}
    best = min(value for name, value in medians.items() if name.startswith("**"))
    print(f"\n### {net}\n")
    print(
        f"{flops(net) / 1e9:.2f} GFLOP a point, matrix product {speed / 1e9:.0f} GFLOP/s "
        f"({min(rates) / 1e9:.0f} to {max(rates) / 1e9:.0f}): limit {1e3 * limit:.1f} ms.\n"
    )
    print("| tool | ms a point | spread | x limit | against our best | set-up s | peak MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, value in sorted(medians.items(), key=lambda item: item[1]):
        spread = (max(rows[name]) - min(rows[name])) / value
        more = details[name]
        label = f"{name} {more['version']}" if more.get("version", "none") != "none" else name
        setup = f"{more['setup']:.1f}" if "setup" in more else ""
        print(
            f"| {label} | {1e3 * value:.2f} | {spread:.0%} | {value / limit:.2f} | "
            f"{value / best:.2f} | {setup} | {more['peak_mb']:.0f} |"
        )
    for name, more in details.items():
        if "forward_mb" in more:
            print(
                f"\n{name}: peak {more['peak_mb']:.0f} MB over all points, {more['forward_mb']:.0f} MB "
                "after one plain forward pass of 128 examples (data and library included)."
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="interpreter of the peers' environment")
    parser.add_argument("--nets", default=",".join(POINTS))
    parser.add_argument("--executors", default="plain,chunked,fused")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ours", nargs=2, metavar=("NET", "EXECUTOR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        print(json.dumps(ours(*options.ours)))
        return
    print(
        f"torch {torch.__version__}, {platform.machine()}, one thread, median of {options.rounds} rounds."
    )
    for net in options.nets.split(","):
        table(net, options.executors.split(","), options.peers, options.rounds)


if __name__ == "__main__":
    main()
