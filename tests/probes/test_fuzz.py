"""Throws damaged and hostile files at what `probes` reads of others: SAEs in three layouts, transcripts, thresholds. Each gives a value, or
our own error in one line, within its time.
"""

from pathlib import Path

import pytest
import torch
from chat_spans import merging_tokenizer
from fuzzing import AT_LENGTH, Parser, laid_out, lines, profile, run
from safetensors.torch import save

from emis_interp.files.store import read_record
from emis_interp.probe_results import MonitorThreshold
from probes.monitoring.texts import read_transcripts
from probes.sae.layouts import load_dictionary

D_MODEL, N_LATENTS, K = 4, 8, 2
ENCODER, DECODER = torch.ones(N_LATENTS, D_MODEL), torch.ones(N_LATENTS, D_MODEL)
B_ENC, B_DEC = torch.zeros(N_LATENTS), torch.zeros(D_MODEL)
SPARSIFY = save({"encoder.weight": ENCODER, "encoder.bias": B_ENC, "W_dec": DECODER, "b_dec": B_DEC})
LEARNING = save(
    {"encoder.weight": ENCODER, "encoder.bias": B_ENC, "decoder.weight": DECODER.T.contiguous(), "b_dec": B_DEC}
    | {"k": torch.tensor(K), "threshold": torch.tensor(0.5)}
)
OWN = save({"W_enc": ENCODER.T.contiguous(), "b_enc": B_ENC, "W_dec": DECODER, "b_dec": B_DEC})
SPARSIFY_CONFIG = {"d_in": D_MODEL, "num_latents": N_LATENTS, "expansion_factor": 2, "k": K, "signed": False}
LEARNING_CONFIG = {
    "trainer": {"dict_class": "AutoEncoderTopK", "activation_dim": D_MODEL, "dict_size": N_LATENTS}
    | {"k": K, "layer": 1, "lm_name": "a/b"}
}
OWN_CONFIG = {
    **{"architecture": "topk", "d_in": D_MODEL, "d_sae": N_LATENTS, "k": K, "dtype": "float32", "device": "cpu"},
    **{"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"},
    "metadata": {"sae_lens_version": "6.54.0", "model_name": "m", "hook_name": "blocks.1.hook_resid_post"},
}
MESSAGES = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
THRESHOLD = {
    **{"value": 0.5, "rate": 0.01, "n": 200, "rank": 199, "window": 4, "layer": 1, "model": "m", "scorer": "s"},
    **{
        "source": "advice",
        "n_questions": 200,
        "scorer_sha256": "0",
        "sampled": 0,
        "mean_of_maxima": 0.1,
        "largest_of_maxima": 1.0,
    },
    "spread": {"mean": 0.01, "low": 0.0, "high": 0.02},
}


OWN_TEXT, SPARSIFY_TEXT, LEARNING_TEXT = lines(OWN_CONFIG), lines(SPARSIFY_CONFIG), lines(LEARNING_CONFIG)


def of_folder(path: Path) -> object:
    return load_dictionary(path.parent)


PARSERS: dict[str, Parser] = {
    "SAE of sae-lens, settings": Parser("s/cfg.json", of_folder, (OWN_CONFIG,), "json", {"s/sae_weights.safetensors": OWN}),
    "SAE of sae-lens, weights": Parser("s/sae_weights.safetensors", of_folder, (OWN,), "bytes", {"s/cfg.json": OWN_TEXT}),
    "SAE of sparsify, settings": Parser("layers.1/cfg.json", of_folder, (SPARSIFY_CONFIG,), "json", {"layers.1/sae.safetensors": SPARSIFY}),
    "SAE of sparsify, weights": Parser("layers.1/sae.safetensors", of_folder, (SPARSIFY,), "bytes", {"layers.1/cfg.json": SPARSIFY_TEXT}),
    "SAE of dictionary_learning, settings": Parser("s/config.json", of_folder, (LEARNING_CONFIG,), "json", {"s/ae.safetensors": LEARNING}),
    "SAE of dictionary_learning, weights": Parser("s/ae.safetensors", of_folder, (LEARNING,), "bytes", {"s/config.json": LEARNING_TEXT}),
    "transcripts": Parser("t.jsonl", lambda path: read_transcripts(path, merging_tokenizer()), ({"messages": MESSAGES},), "json"),
    "threshold": Parser("t.json", lambda path: read_record(path, MonitorThreshold), (THRESHOLD,), "json"),
}  # fmt: skip


@pytest.mark.parametrize("name", PARSERS)
def test_a_reader_of_probes_gives_a_value_or_our_own_error(name: str) -> None:
    run(PARSERS[name], profile(25, fixed=True))


@pytest.mark.fuzz
@pytest.mark.parametrize("name", PARSERS)
def test_a_reader_of_probes_gives_a_value_or_our_own_error_at_length(name: str) -> None:
    run(PARSERS[name], profile(AT_LENGTH, fixed=False))


@pytest.mark.parametrize("name", PARSERS)
def test_the_seed_itself_is_read(name: str) -> None:
    """Else everything would be an error, and the others would show nothing."""
    parser = PARSERS[name]
    (seed,) = parser.seeds
    with laid_out(parser, seed if parser.kind == "bytes" else lines(seed)) as folder:
        parser.read(folder / parser.name)
