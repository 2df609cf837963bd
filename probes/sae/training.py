"""Turns tokens into a trained SAE, by sae-lens' `SAETrainer`, in a folder from which `load_dictionary` reads it.

Nothing of sae-lens' own checkpoints is used (they are pickled): a finished SAE is kept, an interrupted one is trained again, to the same
numbers. Weights and biases is never asked for.
"""

import logging
import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.sae_trainer import SAETrainer

from emis_interp.errors import ConfigError, DataError, ModelError
from emis_interp.files.claim import claim
from emis_interp.files.hashes import hashes
from emis_interp.files.store import write_sealed
from emis_interp.process import Advance
from probes.sae.dictionary import Dictionary
from probes.sae.finished import FINISHED, WEIGHTS, FinishedSae, read_finished
from probes.sae.layouts import SAE_LENS, load_dictionary
from probes.sae.pool import EndlessBatches, TokenPool

log = logging.getLogger(__name__)
WARM_UP, DECAY, SILENT = 1 / 20, 1 / 5, 1 / 10
"""Shares of the steps: until the learning rate is whole, in which it falls to zero, and after which a silent latent counts as dead and is
trained on what the others miss. sae-lens' own default for the last, 1,000 steps, is longer than a small training."""
NESTED = (8, 4, 2, 1)
"""Widths of a Matryoshka SAE: the number of latents divided by each."""


@dataclass(frozen=True)
class TrainingPlan:
    """What decides an SAE, besides its tokens.

    Attributes:
        n_samples: tokens to train on; whole batches are drawn, so up to one batch less.
        random_decoder: the decoder stays what it was drawn as, and the encoder learns to use it.
        autocast: matrix products in bfloat16.
    """

    kind: Literal["topk", "batchtopk", "matryoshka"] = "topk"
    n_latents: int = 4608
    k: int = 32
    n_samples: int = 1_000_000
    batch_size: int = 512
    learning_rate: float = 1e-3
    seed: int = 0
    random_decoder: bool = False
    autocast: bool = False

    @property
    def n_steps(self) -> int:
        return self.n_samples // self.batch_size

    def check(self) -> None:
        """Raises ConfigError: sizes that make no SAE or no step."""
        if not 0 < self.k <= self.n_latents:
            raise ConfigError(
                f"{self.k} active latents of {self.n_latents} asked for; give a smaller --k or a larger --expansion"
            )
        if self.n_steps < 1:
            raise ConfigError(
                f"{self.n_samples} tokens make no batch of {self.batch_size}; raise --n-samples or lower --batch-size"
            )
        if self.kind == "matryoshka" and self.n_latents < 2 * NESTED[0]:
            raise ConfigError(
                f"{self.n_latents} latents are too few to nest in {len(NESTED)} widths; raise --expansion"
            )


def trained(
    folder: Path, pool: TokenPool, plan: TrainingPlan, *, about: dict[str, Any], advance: Advance | None = None
) -> Dictionary:
    """The SAE of a folder, trained if it is not there, or not as it was written.

    Args:
        about: `model`, `layer`, and what else decides the tokens; kept on the card.

    Raises:
        ConfigError: as `TrainingPlan.check`.
        StageError: the folder holds an SAE of other settings or tokens.
        ModelError: the loss or the weights are not finite, with the step.
    """
    plan.check()
    claim(folder / "plan.json", {**asdict(plan), **about}, holds="an SAE", advice="choose another --out, or delete it")
    weights = folder / WEIGHTS
    if finished(folder) is None:
        began = time.monotonic()
        sae, losses = fit(pool, plan, about, advance=advance)
        losses["seconds"] = time.monotonic() - began
        shutil.rmtree(weights, ignore_errors=True)
        sae.save_inference_model(weights)
        files = hashes(weights, [path for path in weights.rglob("*") if path.is_file()])
        write_sealed(folder / FINISHED, FinishedSae(files=files, scale=pool.scale, **losses).model_dump(mode="json"))
    elif advance is not None:
        advance(plan.n_steps)
    return load_dictionary(weights)


def finished(folder: Path) -> FinishedSae | None:
    """What is known of the SAE of a folder; None where it is to be trained, and what was damaged is logged."""
    if not (folder / FINISHED).exists():
        return None
    try:
        return read_finished(folder, SAE_LENS)
    except DataError as error:
        log.warning("%s; trained again", error)
        return None


def fit(
    pool: TokenPool, plan: TrainingPlan, about: dict[str, Any], *, advance: Advance | None = None
) -> tuple[Any, dict[str, Any]]:
    """A training SAE that reads raw residuals, and its curve.

    The steps of `SAETrainer.fit`, which has no other way to show progress or to keep a curve than a bar and wandb; a test compares the two.
    The factor that normalises activations is that of all train tokens, given instead of estimated from the first 1,000 batches, and is
    folded into the weights at the end. The decoder's bias begins at the mean.

    Raises:
        ModelError: the loss or the weights are not finite, with the step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        sae: Any = new_sae(plan, pool.train.shape[-1], about)
    sae.b_dec.data.copy_(pool.mean * pool.scale)
    sae.W_dec.requires_grad_(not plan.random_decoder)
    trainer = SAETrainer(
        cfg=trainer_config(plan), sae=sae, data_provider=EndlessBatches(pool.train, plan.batch_size, plan.seed)
    )
    trainer.activation_scaler.scaling_factor = pool.scale
    variance = float((pool.train[:8192].float() - pool.mean).square().sum(-1).mean()) * pool.scale**2
    curve: list[list[float]] = []
    every = max(1, plan.n_steps // 20)
    for step in range(plan.n_steps):
        trainer.maybe_reset_sparsity()
        output = trainer.step(next(trainer.data_provider))
        trainer.n_training_steps += 1
        missed = float(output.losses["mse_loss"].detach())
        if not math.isfinite(missed):
            raise ModelError(
                f"training the SAE broke down at step {step + 1} of {plan.n_steps}: its loss is {missed}; lower --learning-rate "
                f"(now {plan.learning_rate:g})"
            )
        if (step + 1) % every == 0 or step + 1 == plan.n_steps:
            curve.append([trainer.n_training_samples, missed / variance])
        if advance is not None:
            advance(1)
    if not all(bool(weight.isfinite().all()) for weight in sae.parameters()):
        raise ModelError(
            f"training the SAE broke down at step {plan.n_steps}, the last: its weights are not finite; lower --learning-rate "
            f"(now {plan.learning_rate:g})"
        )
    sae.fold_activation_norm_scaling_factor(pool.scale)
    trainer.set_final_sae_metadata()
    return sae, {
        "n_samples": trainer.n_training_samples,
        "n_epochs": trainer.n_training_samples / len(pool.train),
        "curve": curve,
    }


def new_sae(plan: TrainingPlan, d_model: int, about: dict[str, Any]) -> Any:
    """An untrained SAE of sae-lens, drawn from torch's global generator."""
    common: dict[str, Any] = {
        "d_in": d_model,
        "d_sae": plan.n_latents,
        "normalize_activations": "expected_average_only_in",
        "metadata": SAEMetadata(
            model_name=about["model"],
            hook_name=f"blocks.{about['layer']}.hook_resid_post",
            prepend_bos=False,  # a rendered conversation brings its own
            **({"reads": about["reads"]} if "reads" in about else {}),
        ),
    }
    if plan.kind == "topk":
        return TopKTrainingSAE(TopKTrainingSAEConfig(k=plan.k, **common))
    if plan.kind == "batchtopk":
        return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=float(plan.k), **common))
    widths = [plan.n_latents // divisor for divisor in NESTED]
    config = MatryoshkaBatchTopKTrainingSAEConfig(k=float(plan.k), matryoshka_widths=widths, **common)
    return MatryoshkaBatchTopKTrainingSAE(config)


def trainer_config(plan: TrainingPlan) -> SAETrainerConfig:
    """sae-lens clips the gradient to 1.0, of a squared error that is summed over dimensions, so that nearly every step is clipped; Adam
    divides such a factor out again."""
    return SAETrainerConfig(
        total_training_samples=plan.n_steps * plan.batch_size,
        train_batch_size_samples=plan.batch_size,
        autocast=plan.autocast,
        lr=plan.learning_rate,
        lr_end=plan.learning_rate,  # of the constant part; SAETrainer refuses None
        lr_warm_up_steps=int(WARM_UP * plan.n_steps),
        lr_decay_steps=int(DECAY * plan.n_steps),
        dead_feature_window=max(1, int(SILENT * plan.n_steps)),
        logger=LoggingConfig(log_to_wandb=False),
        n_checkpoints=0,
        checkpoint_path=None,
    )
