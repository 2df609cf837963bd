"""The tables of a transfer: families whose p-values are corrected, and stars for what shuffled labels do not reach."""

import numpy as np
import pytest
import torch
from planted import arm, axis

from emis_interp.fitting.extractors import question_balanced
from probes import transfer_matrix
from probes.transfer import transfer_auroc


def test_every_table_of_a_transfer_is_a_family_whose_p_values_are_corrected() -> None:
    generator = np.random.default_rng(0)
    names = [(i, j) for i in "abc" for j in "abc"]
    matrix = {pair: {q: float(0.5 + 0.02 * generator.normal()) for q in "qrst"} for pair in names}
    matrix["a", "a"] = {"q": 0.9, "r": 0.92, "s": 0.91, "t": 0.9}
    cells = transfer_matrix.aurocs(matrix)
    assert all(row["p_holm"] >= row["p"] for row in cells.values())
    assert cells["a|a"]["p_holm"] == pytest.approx(9 * cells["a|a"]["p"]) and cells["a|a"]["p_holm"] < 0.05
    assert transfer_matrix._cell(cells["a|a"]).startswith("0.907*") and "*" not in transfer_matrix._cell(cells["b|c"])
    saturated = transfer_matrix.aurocs({("a", "a"): {"q": 1.0, "r": 1.0}, ("a", "b"): {}})
    assert (
        saturated["a|a"]["p"] is saturated["a|a"]["p_holm"] is None
        and transfer_matrix._cell(saturated["a|a"]) == "1.000 "
    )
    assert transfer_matrix._cell(saturated["a|b"]) == "-"
    shifts = transfer_matrix.summarized({("a", "b"): {"q": 0.1, "r": 0.12, "s": 0.11}})
    assert shifts["a|b"]["p"] < 0.01 and shifts["a|b"]["p_holm"] == shifts["a|b"]["p"]


def test_a_cell_is_starred_only_above_directions_of_shuffled_labels() -> None:
    """A large feature that both arms share separates the test texts by chance; any direction lies along it, shuffled labels too."""
    generator = torch.Generator().manual_seed(0)
    real = {"base": arm(0.6 * axis(0), "abcd", seed=0)}, {"base": arm(0.6 * axis(0), "efgh", seed=1)}
    lucky = {"base": arm(0 * axis(0), "abcd", seed=0)}, {"base": arm(0 * axis(0), "efgh", seed=1)}
    lucky[0]["base"].x[:, :, 3] += 30 * torch.randn(80, 1, generator=generator)
    sign = torch.sign(question_balanced(lucky[0]["base"])[1, 3])
    lucky[1]["base"].x[:, :, 3] += sign * 30 * torch.from_numpy(lucky[1]["base"].misaligned).float()[:, None]
    starred = []
    for fit, test in (real, lucky):
        cells = transfer_matrix.aurocs(transfer_auroc(fit, test, 1))
        found = transfer_matrix.with_controls(cells, fit, test, layer=1, extractor=question_balanced, n=60, seed=0)[
            "base|base"
        ]
        assert found["value"] > 0.8
        starred.append("*" in transfer_matrix._cell({**found, "p_holm": 0.001}))
    assert starred == [True, False]
