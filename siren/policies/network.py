"""Inference of a trained policy with numpy alone, and the folder that holds one.

An agent folder has `policy.safetensors` (the weights), `policy.json` (what they mean), `CARD.md`
and `train.toml` (how they were made). Nothing in it is code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from siren.errors import AgentError
from siren.simulator.observation import NAMES
from siren.simulator.tables import FUNCTIONS_SPAN, MEMORY_SPAN

Singles = NDArray[np.float32]

FORMAT = 1
"""Version of `policy.json`."""

WEIGHTS, META = "policy.safetensors", "policy.json"
_LAYER = re.compile(r"mlp\.(\d+)\.weight")
_LAST_ACTION = slice(NAMES.index("functions"), NAMES.index("memory") + 1)  # they are neighbours
_FIRST_EPOCH = NAMES.index("first_epoch")


def held(action: Singles, observation: Singles, hold: Singles) -> Singles:
    """The action, or in each part the last one again where the change is smaller than `hold`.

    A small change gains nothing and costs other shards or cold environments.

    Args:
        action: float32, (..., 2).
        observation: float32, (..., len(NAMES)), which tells the last action.
        hold: float32, (2,), of functions and of memory.
    """
    last = observation[..., _LAST_ACTION]
    same = (np.abs(action - last) < hold) & (observation[..., _FIRST_EPOCH : _FIRST_EPOCH + 1] < 0)
    result: Singles = np.where(same, last, action)
    return result


@dataclass(frozen=True)
class Spaces:
    """What a network reads and what its outputs mean.

    Attributes:
        observation: Names of its inputs, in order.
        functions_span, memory_span: Natural logarithms of how far actions of 1 reach from n_ref, m_ref.
    """

    observation: tuple[str, ...] = NAMES
    functions_span: float = FUNCTIONS_SPAN
    memory_span: float = MEMORY_SPAN


class Network:
    """A policy network: observation -> action in [-1, 1]^2.

    An optional LSTM cell, then linear layers with tanh between them; one linear layer alone is a
    linear policy.

    Args:
        tensors: float32, in torch's layout: `mlp.<k>.weight` (out, in) and `mlp.<k>.bias` (out,) for k = 0,
            1, ...; and for a recurrent policy `lstm.weight_ih` (4 H, in), `lstm.weight_hh` (4 H, H),
            `lstm.bias` (4 H,), the sum of both biases; gates in the order input, forget, cell, output.
            `hold` (2,), optional: see `held`.

    Raises:
        AgentError: Tensors are missing, have the wrong type or shape, or are not finite.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        self._lstm = _lstm_of(self.tensors)
        self._layers = _layers_of(self.tensors)
        self._hold = _tensor(self.tensors, "hold", 1) if "hold" in self.tensors else None
        self._memory: tuple[Singles, Singles] | None = None
        known = {f"mlp.{k}.{part}" for k in range(len(self._layers)) for part in ("weight", "bias")}
        known |= {f"lstm.{part}" for part in ("weight_ih", "weight_hh", "bias")} if self._lstm else set()
        strange = sorted(set(self.tensors) - known - {"hold"})
        if strange:
            raise AgentError(f"unknown tensors {', '.join(strange)}: the agent is of another version")
        self._check_shapes()
        self.reset()

    @property
    def inputs(self) -> int:
        """Length of an observation."""
        return int((self._lstm[0] if self._lstm else self._layers[0][0]).shape[1])

    @property
    def hidden(self) -> tuple[int, ...]:
        """Units of its hidden layers."""
        return tuple(len(bias) for _, bias in self._layers[:-1])

    @property
    def hold(self) -> tuple[float, float]:
        """See `held`; zeros hold nothing."""
        if self._hold is None:
            return 0.0, 0.0
        functions, memory = np.round(self._hold.astype(np.float64), 6).tolist()
        return functions, memory

    @property
    def recurrent(self) -> bool:
        """Whether actions depend on earlier observations."""
        return self._lstm is not None

    def reset(self) -> None:
        """Forgets the earlier observations of an episode."""
        if self._lstm:
            hidden = self._lstm[1].shape[1]
            self._memory = np.zeros(hidden, np.float32), np.zeros(hidden, np.float32)

    def act(self, observation: Singles) -> Singles:
        """The mean action, cut to [-1, 1] and held; float32, (2,).

        Args:
            observation: float32, (inputs,).
        """
        x = observation
        if self._lstm:
            x = self._recall(x)
        for weight, bias in self._layers[:-1]:
            x = np.tanh(weight @ x + bias)
        weight, bias = self._layers[-1]
        action: Singles = np.clip(weight @ x + bias, -1.0, 1.0)
        return action if self._hold is None else held(action, observation, self._hold)

    def _recall(self, x: Singles) -> Singles:
        assert self._lstm is not None
        assert self._memory is not None
        weight_ih, weight_hh, bias = self._lstm
        hidden, cell = self._memory
        gates = weight_ih @ x + weight_hh @ hidden + bias
        enter, forget, candidate, leave = np.split(gates, 4)
        cell = _sigmoid(forget) * cell + _sigmoid(enter) * np.tanh(candidate)
        hidden = _sigmoid(leave) * np.tanh(cell)
        self._memory = hidden, cell
        return hidden

    def _check_shapes(self) -> None:
        width = self.inputs
        if self._hold is not None and (self._hold.shape != (2,) or width != len(NAMES)):
            raise AgentError("tensor hold does not fit the observation: train the agent again")
        if self._lstm:
            weight_ih, weight_hh, bias = self._lstm
            hidden = weight_hh.shape[1]
            if (weight_ih.shape[0], *weight_hh.shape, *bias.shape) != (
                4 * hidden,
                4 * hidden,
                hidden,
                4 * hidden,
            ):
                raise AgentError(
                    "the shapes of the lstm tensors do not fit each other: train the agent again"
                )
            width = hidden
        for k, (weight, bias) in enumerate(self._layers):
            if weight.shape[1] != width or bias.shape != weight.shape[:1]:
                raise AgentError(f"layer mlp.{k} does not fit the layer before it: train the agent again")
            width = weight.shape[0]
        if width != 2:
            raise AgentError(f"the agent has {width} outputs, not 2 (functions and memory)")


def _sigmoid(x: Singles) -> Singles:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)), np.float32)


def _tensor(tensors: Mapping[str, NDArray[Any]], name: str, dimensions: int) -> Singles:
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != np.float32 or tensor.ndim != dimensions:
        raise AgentError(f"tensor {name} is missing, or not float32 with {dimensions} dimensions")
    if not np.isfinite(tensor).all():
        raise AgentError(f"tensor {name} has values that are not finite: train the agent again")
    return tensor


def _lstm_of(tensors: Mapping[str, NDArray[Any]]) -> tuple[Singles, Singles, Singles] | None:
    if not any(name.startswith("lstm.") for name in tensors):
        return None
    return (
        _tensor(tensors, "lstm.weight_ih", 2),
        _tensor(tensors, "lstm.weight_hh", 2),
        _tensor(tensors, "lstm.bias", 1),
    )


def _layers_of(tensors: Mapping[str, NDArray[Any]]) -> list[tuple[Singles, Singles]]:
    count = sum(bool(_LAYER.fullmatch(name)) for name in tensors)
    if not count:
        raise AgentError("the agent has no layer mlp.0: its weights are of another program")
    return [
        (_tensor(tensors, f"mlp.{k}.weight", 2), _tensor(tensors, f"mlp.{k}.bias", 1)) for k in range(count)
    ]


def save_network(folder: Path, network: Network, spaces: Spaces, facts: Mapping[str, Any]) -> None:
    """Writes `policy.safetensors` and `policy.json`, each whole or not at all.

    Args:
        folder: The agent folder; made if it does not exist.
        network: The weights.
        spaces: What they read and mean.
        facts: Anything else worth knowing of the training, JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    meta = {"format": FORMAT, "spaces": asdict(spaces), **facts}
    _replace(folder / WEIGHTS, save(network.tensors))
    _replace(folder / META, (json.dumps(meta, indent=2, sort_keys=True) + "\n").encode())


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_network(folder: Path) -> tuple[Network, dict[str, Any]]:
    """The network of an agent folder, and its `policy.json`.

    Raises:
        AgentError: The folder is no agent, damaged, or its spaces are not those of this version of Siren.
    """
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise AgentError(f"{folder} is no agent: it has no {Path(error.filename or WEIGHTS).name}") from error
    except (ValueError, TypeError, OSError, SafetensorError) as error:  # TypeError: a type numpy lacks
        raise AgentError(f"{folder} is damaged ({error}): restore it, or train the agent again") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise AgentError(
            f"{folder / META} is not of format {FORMAT}: train the agent again with this version"
        )
    wanted = json.loads(json.dumps(asdict(Spaces())))
    if meta.get("spaces") != wanted:
        raise AgentError(
            f"the agent in {folder} was trained for other spaces (observation, or reach of actions) than "
            "those of this version of Siren: train it again with `python -m siren.train_agent`"
        )
    network = Network(tensors)
    if network.inputs != len(NAMES):
        raise AgentError(
            f"the agent in {folder} reads {network.inputs} numbers, an observation has {len(NAMES)}"
        )
    return network, meta
