"""The learners of Stable-Baselines3: built from a recipe, and their policies as numpy networks."""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.errors import AgentError, MissingExtraError
from siren.learning.recipe import RECIPE, Algorithm, Recipe
from siren.policies.network import Network

try:
    import torch
    from sb3_contrib import RecurrentPPO
    from stable_baselines3 import A2C, PPO
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
    from stable_baselines3.common.vec_env import VecEnv
except ModuleNotFoundError as error:  # pragma: no cover - depends on what is installed
    raise MissingExtraError(error.name or "stable-baselines3", "train") from error


def make_learner(recipe: Recipe, env: VecEnv, seed: int) -> OnPolicyAlgorithm:
    """A learner whose first policy is the zero action, with noise.

    Args:
        recipe: Algorithm, network and hyper-parameters.
        env: Where it learns.
        seed: Of the initial weights, the actions and the environments.
    """
    o, n = recipe.optimiser, recipe.network
    common: dict[str, Any] = {
        "env": env,
        "learning_rate": (lambda left: o.learning_rate * left) if o.anneal else o.learning_rate,
        "n_steps": o.rollout,
        "gamma": o.gamma,
        "gae_lambda": o.gae_lambda,
        "ent_coef": o.entropy,
        "vf_coef": o.value,
        "max_grad_norm": o.gradient_norm,
        "seed": seed,
        "device": "cpu",
        "policy_kwargs": {
            "net_arch": {"pi": list(n.layers), "vf": list(n.layers)},
            "activation_fn": torch.nn.Tanh,
            "log_std_init": n.log_std,
        },
    }
    proximal: dict[str, Any] = {"batch_size": o.minibatch, "n_epochs": o.passes, "clip_range": o.clip}
    learner: OnPolicyAlgorithm
    match recipe.algorithm:
        case Algorithm.PPO:
            learner = PPO("MlpPolicy", **common, **proximal)
        case Algorithm.A2C:
            learner = A2C("MlpPolicy", **common)
        case Algorithm.RECURRENT_PPO:
            common["policy_kwargs"]["lstm_hidden_size"] = n.lstm
            learner = RecurrentPPO("MlpLstmPolicy", **common, **proximal)
    policy: Any = learner.policy
    with torch.no_grad():
        for parameter in policy.action_net.parameters():
            parameter.zero_()
    return learner


def give_network(learner: OnPolicyAlgorithm, network: Network) -> None:
    """Makes a network the learner's actor; the critic stays as it is.

    Args:
        learner: One without a memory.
        network: See `network_of`.

    Raises:
        AgentError: It has other layers than the learner.
    """
    layers = _layers(learner)
    own = {name: tuple(tensor.shape) for name, tensor in network.tensors.items() if name != "hold"}
    if isinstance(learner, RecurrentPPO) or own != {
        name: tuple(parameter.shape) for name, parameter in layers.items()
    }:
        raise AgentError(
            "the network that training is to start from has other layers than the recipe's, or a memory: "
            "start from another agent, or correct [network] in the recipe"
        )
    with torch.no_grad():
        for name, parameter in layers.items():
            parameter.copy_(torch.from_numpy(network.tensors[name]))


def _layers(learner: BaseAlgorithm) -> dict[str, torch.Tensor]:
    """The linear layers of the actor by their names in a `Network`."""
    policy: Any = learner.policy
    linear = [layer for layer in policy.mlp_extractor.policy_net if isinstance(layer, torch.nn.Linear)]
    layers = enumerate([*linear, policy.action_net])
    return {f"mlp.{k}.{part}": getattr(layer, part) for k, layer in layers for part in ("weight", "bias")}


def freeze_actor(learner: BaseAlgorithm, frozen: bool) -> None:
    """Whether the actor keeps its weights while the critic learns."""
    policy: Any = learner.policy
    for parameter in (*policy.mlp_extractor.policy_net.parameters(), *policy.action_net.parameters()):
        parameter.requires_grad_(not frozen)
    policy.log_std.requires_grad_(not frozen)


def save_learner(learner: BaseAlgorithm) -> bytes:
    """The learner as a zip of Stable-Baselines3."""
    buffer = io.BytesIO()
    learner.save(buffer)
    return buffer.getvalue()


def load_learner(learner: BaseAlgorithm, data: bytes, steps: int) -> None:
    """Gives a learner the weights and the optimiser's state of a saved one; runs no pickled code.

    Args:
        learner: One of the same recipe.
        data: See `save_learner`.
        steps: Steps that the saved one was trained for.

    Raises:
        AgentError: The zip is damaged, or of another recipe.
    """
    try:
        learner.set_parameters(io.BytesIO(data), device="cpu")  # type: ignore[arg-type]  # takes files too
    except (ValueError, RuntimeError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise AgentError(
            f"the checkpoint does not fit its {RECIPE} or is damaged ({reason}): start the training anew"
        ) from error
    learner.num_timesteps = steps


def network_of(learner: BaseAlgorithm, hold: tuple[float, float] = (0.0, 0.0)) -> Network:
    """The actor's mean action as a network of numpy.

    Args:
        learner: The learner.
        hold: See `siren.policies.network.held`; zeros hold nothing.
    """
    policy: Any = learner.policy
    tensors: dict[str, NDArray[Any]] = {name: _array(tensor) for name, tensor in _layers(learner).items()}
    if isinstance(learner, RecurrentPPO):
        cell = policy.lstm_actor
        tensors["lstm.weight_ih"], tensors["lstm.weight_hh"] = (
            _array(cell.weight_ih_l0),
            _array(cell.weight_hh_l0),
        )
        tensors["lstm.bias"] = _array(cell.bias_ih_l0) + _array(cell.bias_hh_l0)
    if any(hold):
        tensors["hold"] = np.array(hold, np.float32)
    return Network(tensors)


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().numpy().copy()
    return array
