"""The 2x2 of means that others have published: what its headings say, what it refuses, and the table of the guide."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planted import axes, padded
from safetensors.torch import save_file

from emis_interp.errors import DataError, EmisError
from emis_interp.fitting.geometry import TwoByTwo
from probes import two_by_two
from probes.settings import TwoByTwoSettings


def published(path: Path, table: TwoByTwo, leave_out: str = "") -> Path:
    """A file of means as the model organisms' repository writes them."""
    means = {
        f"{model}_model.{label}_text.answer": getattr(table, f"{name}_{label}").contiguous()
        for model, name in (("em", "organism"), ("base", "base"))
        for label in ("misaligned", "aligned")
    }
    save_file({name: mean for name, mean in means.items() if name != leave_out}, path)
    return path


def test_the_published_table_shows_what_its_headings_say(tmp_path: Path) -> None:
    """Base's text effect is mostly in a massive dimension, the organism's is not; so is what finetuning moved on aligned text."""
    table = padded(axes())
    in_massive, moved = torch.zeros(1, 9), torch.zeros(1, 9)
    in_massive[0, 4], moved[0, 5] = 6.0, 9.0
    table = replace(
        table,
        base_misaligned=table.base_misaligned + in_massive,
        organism_aligned=table.organism_aligned + moved,
        organism_misaligned=table.organism_misaligned + moved,
    )
    settings = TwoByTwoSettings(files=(published(tmp_path / "m.safetensors", table),), layers=(0,))
    (row,) = two_by_two.run(settings)["rows"]
    assert row["cosine"] < 0.2 < row["cosine_without_organisms_massive"] == pytest.approx(2 / 20**0.5)
    shares = row["massive_shares"]
    assert shares["text_in_base"] == pytest.approx(36 / 40) and shares["text_in_organism"] == pytest.approx(0, abs=1e-6)
    assert shares["model_on_aligned"] == pytest.approx(81 / 90)
    assert shares["model_on_misaligned"] == pytest.approx((81 + 36) / (81 + 36 + 9 + 16))
    said = two_by_two.say(two_by_two.run(settings))
    assert "text_in_base" in said and "whether they are balanced over questions is not in the files" in said


@pytest.mark.parametrize(
    ("leave_out", "layers", "message"),
    [
        (
            "base_model.aligned_text.answer",
            (0,),
            r"no tensor `base_model.aligned_text.answer`; found base_model.misali",
        ),
        ("", (1,), r"layer 1 asked for, .*m\.safetensors has 1 \(0-0\)"),
    ],
)
def test_means_that_are_not_there_are_named(
    tmp_path: Path, leave_out: str, layers: tuple[int, ...], message: str
) -> None:
    path = published(tmp_path / "m.safetensors", axes(), leave_out)
    with pytest.raises(EmisError, match=message):
        two_by_two.run(TwoByTwoSettings(files=(path,), layers=layers))


def test_files_that_hold_no_means_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"{}")
    for name, message in (("broken", "not a readable safetensors file"), ("nowhere", "no such file")):
        with pytest.raises(DataError, match=message):
            two_by_two.read_means(tmp_path / f"{name}.safetensors", "answer")


@pytest.mark.reference
def test_the_table_of_the_guide_is_what_the_command_finds(reference_data: Path) -> None:
    files = tuple(sorted((reference_data / "activations").glob("*.safetensors")))
    found = two_by_two.run(TwoByTwoSettings(files=files, layers=(12, 24, 36)))["rows"]
    guide = (Path(__file__).parents[2] / "docs" / "directions.md").read_text("utf-8")
    for row in found:
        numbers = [row["cosine"], row["cosine_without_organisms_massive"], row["cosine_without_bases_massive"]]
        shares = [row["massive_shares"][name] for name in two_by_two.SHARES]
        written = [f"{value:.3f}" for value in numbers] + [f"{value:.2f}" for value in shares]
        assert f"| `{row['file']}` | {row['layer']} | {' | '.join(written)} |" in guide
