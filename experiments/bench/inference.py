"""Time of a decision of a policy network: `python experiments/bench/inference.py`.

Numpy alone, on one core: networks of the shapes that recipes train, with random weights, and the
agent folders that are given. Prints one line per network, and with `--json` an object instead.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from threadpoolctl import threadpool_limits

from siren.policies.network import Network, load_network
from siren.simulator.observation import OBSERVATION_SIZE

TARGET_US = 100.0


@dataclass(frozen=True)
class BenchConfig:
    """Measure the CPU microseconds of a decision."""

    agents: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Agent folders to measure beside the networks of random weights."""

    repeats: int = 20
    """Rounds; their median and the slowest are printed."""

    decisions: int = 2000
    """Decisions of a round."""

    seed: int = 0
    """Seed of weights and observations."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object."""


def random_network(rng: np.random.Generator, layers: tuple[int, ...], lstm: int = 0) -> Network:
    """A network with those hidden layers, behind an LSTM cell of so many units."""
    tensors, width = {}, OBSERVATION_SIZE
    if lstm:
        tensors["lstm.weight_ih"] = rng.normal(size=(4 * lstm, width))
        tensors["lstm.weight_hh"] = rng.normal(size=(4 * lstm, lstm))
        tensors["lstm.bias"] = rng.normal(size=4 * lstm)
        width = lstm
    for k, units in enumerate((*layers, 2)):
        tensors[f"mlp.{k}.weight"], tensors[f"mlp.{k}.bias"] = (
            rng.normal(size=(units, width)),
            np.zeros(units),
        )
        width = units
    return Network({name: tensor.astype(np.float32) for name, tensor in tensors.items()})


def measure(network: Network, config: BenchConfig) -> dict[str, float]:
    """CPU microseconds of a decision: median and slowest round."""
    rng = np.random.default_rng(config.seed)
    observations = rng.uniform(-1, 1, (config.decisions, network.inputs)).astype(np.float32)
    rounds = []
    for _ in range(config.repeats):
        network.reset()
        start = time.process_time()
        for observation in observations:
            network.act(observation)
        rounds.append((time.process_time() - start) / config.decisions * 1e6)
    return {"median_us": statistics.median(rounds), "slowest_us": max(rounds)}


def main(config: BenchConfig) -> int:
    """Prints the measurements."""
    rng = np.random.default_rng(config.seed)
    networks = {
        "64 x 64": random_network(rng, (64, 64)),
        "128 x 128": random_network(rng, (128, 128)),
        "LSTM 64, 64 x 64": random_network(rng, (64, 64), lstm=64),
    }
    networks |= {str(folder): load_network(folder)[0] for folder in config.agents}
    with threadpool_limits(1):
        found = {name: measure(network, config) for name, network in networks.items()}
    if config.as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return 0
    for name, times in found.items():
        sys.stdout.write(
            f"{name:30s} {times['median_us']:6.1f} us a decision, "
            f"slowest round {times['slowest_us']:6.1f} us (target {TARGET_US:g})\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(BenchConfig)))
