"""The simulator: convergence models, episodes, and Gymnasium environments.

Importing this package registers `siren/Hsp-v0` and `siren/HspTwin-v0` where Gymnasium is installed,
so that `gymnasium.make("siren.simulator:siren/Hsp-v0")` works.
"""

from __future__ import annotations

import importlib.util

ENVIRONMENTS = {
    "siren/Hsp-v0": "siren.simulator.env:HspEnv",
    "siren/HspTwin-v0": "siren.simulator.twin_env:HspTwinEnv",
}
"""Ids of the environments, and where they are."""


def _register() -> None:
    if importlib.util.find_spec("gymnasium") is None:
        return
    import gymnasium

    for name, entry_point in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(id=name, entry_point=entry_point)


_register()
