"""Turns tokens with a known dictionary into trained SAEs that find it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sae_planted import ABOUT, planted, pool_of

from emis_interp.errors import ConfigError, ModelError, StageError
from probes.sae.agreement import agreement, best_cosines
from probes.sae.pool import EndlessBatches
from probes.sae.reconstruction import firing, missed
from probes.sae.training import TrainingPlan, fit, new_sae, trained, trainer_config

VECTORS, TOKENS = planted(6200, seed=11)  # not the seed that the null of `agreement` draws from
POOL = pool_of(TOKENS)
QUESTIONS = [str(i) for i in range(10)]
PLAN = TrainingPlan(n_latents=48, k=2, n_samples=96_000, batch_size=128, learning_rate=3e-3)


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "matryoshka"])
def test_a_planted_dictionary_is_found(tmp_path: Path, kind: str) -> None:
    dictionary = trained(tmp_path, POOL, replace(PLAN, kind=kind), about=ABOUT)
    found = best_cosines(VECTORS, dictionary.decoder)
    assert float(found.mean()) > 0.9
    if kind == "topk":
        assert float((found > 0.9).float().mean()) > 0.9
    fired = firing(dictionary, POOL.held_out)
    assert 1.5 < fired.l0 < 2.5
    assert missed(POOL, QUESTIONS, dictionary.reconstruct)["value"] < 0.15
    assert (dictionary.layer, dictionary.model) == (1, "tiny")
    torch.testing.assert_close(dictionary.decoder.norm(dim=-1), torch.ones(48))


def test_two_seeds_agree_on_what_the_data_holds_and_a_random_decoder_does_not(tmp_path: Path) -> None:
    one, other = (trained(tmp_path / str(seed), POOL, replace(PLAN, seed=seed), about=ABOUT) for seed in (0, 1))
    control = trained(tmp_path / "control", POOL, replace(PLAN, random_decoder=True), about=ABOUT)
    living = [sae.decoder[firing(sae, POOL.train).counts > 60] for sae in (one, other)]
    row = agreement(*living)
    assert row["share_matched"] > 0.8 > row["random_share_matched"]
    assert row["mean_best_cosine"] > row["random_mean_best_cosine"] + 0.2
    values = [missed(POOL, QUESTIONS, sae.reconstruct)["value"] for sae in (one, control)]
    assert values[0] < 0.5 * values[1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = new_sae(PLAN, 16, ABOUT).W_dec
    torch.testing.assert_close(control.decoder, torch.nn.functional.normalize(drawn, dim=-1).detach())


def test_the_steps_are_those_of_sae_lens() -> None:
    """Its own `fit`, given the same factor, ends with the same weights."""
    from sae_lens.training.sae_trainer import SAETrainer

    plan = replace(PLAN, n_samples=128 * 40)
    own, _ = fit(POOL, plan, ABOUT)
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        sae = new_sae(plan, 16, ABOUT)
    sae.b_dec.data.copy_(POOL.mean * POOL.scale)
    trainer = SAETrainer(cfg=trainer_config(plan), sae=sae, data_provider=EndlessBatches(POOL.train, 128, plan.seed))
    trainer.activation_scaler.scaling_factor = POOL.scale
    theirs = trainer.fit()
    assert not torch.equal(own.W_dec, new_sae(plan, 16, ABOUT).W_dec)
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, own.state_dict()[name]), name


def test_a_killed_training_is_done_again_to_the_same_numbers_and_a_finished_one_is_kept(tmp_path: Path) -> None:
    plan = replace(PLAN, n_samples=128 * 30)

    class Killed(Exception):
        pass

    steps = iter(range(10))

    def advance(n: int) -> None:
        if next(steps, None) is None:
            raise Killed

    with pytest.raises(Killed):
        trained(tmp_path / "a", POOL, plan, about=ABOUT, advance=advance)
    again = trained(tmp_path / "a", POOL, plan, about=ABOUT)
    whole = trained(tmp_path / "b", POOL, plan, about=ABOUT)
    assert torch.equal(again.decoder, whole.decoder)
    written = (tmp_path / "a" / "sae" / "sae_weights.safetensors").stat().st_mtime_ns
    trained(tmp_path / "a", POOL, plan, about=ABOUT)
    assert (tmp_path / "a" / "sae" / "sae_weights.safetensors").stat().st_mtime_ns == written
    with pytest.raises(StageError, match=r"k: 2 -> 3"):
        trained(tmp_path / "a", POOL, replace(plan, k=3), about=ABOUT)


def test_a_training_that_breaks_down_names_its_step_and_keeps_nothing(tmp_path: Path) -> None:
    plan = replace(PLAN, n_samples=128 * 30)
    broken = replace(POOL, train=POOL.train.clone())
    broken.train[128 * 2 :] = float("nan")
    with pytest.raises(
        ModelError, match=r"the SAE broke down at step \d+ of 30: its loss is nan; lower --learning-rate"
    ):
        trained(tmp_path, broken, plan, about=ABOUT)
    assert not (tmp_path / "training.json").exists() and not (tmp_path / "sae").exists()


def test_nothing_is_written_but_safetensors_and_json(tmp_path: Path) -> None:
    trained(tmp_path, POOL, replace(PLAN, n_samples=128 * 3), about=ABOUT)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors", ".json"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"k": 49}, "49 active latents of 48"),
        ({"n_samples": 100}, "make no batch of 128"),
        ({"kind": "matryoshka", "n_latents": 12}, "too few to nest"),
    ],
)
def test_sizes_that_make_no_sae_are_refused(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trained(tmp_path, POOL, replace(PLAN, **changed), about=ABOUT)
