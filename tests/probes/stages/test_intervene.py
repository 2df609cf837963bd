"""The cells of the intervene stage: each has a name of its own."""

import torch

from emis_interp.config.presets import load_config
from emis_interp.directions import Direction
from probes.stages.intervene import plan_cells


def test_close_coefficients_have_cells_of_their_own() -> None:
    values = [0.001, 0.004, 0.2, 0.204, -0.2, 0.20000000001]
    config = load_config("smoke", [f"intervention.coefficients={values}"])
    vector = torch.nn.functional.normalize(torch.ones(32), dim=0)
    names = [cell.name for cell in plan_cells(config, Direction(vector, 0, 1.0, 1.0))]
    assert len(set(names)) == len(names)
    assert {"base.steer.misalignment.+0.20", "base.steer.random.-0.20", "base.steer.random.+0.204"} <= set(names)
    assert {"base.steer.misalignment.+0.001", "base.steer.misalignment.+0.004"} <= set(names)
