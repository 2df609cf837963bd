"""Turns an organism's adapter, and a control's, into what they weigh, write and do: the verb `probe.py weights`."""

from collections.abc import Sequence
from typing import Any

from emis_interp.directions import Direction
from emis_interp.errors import ConfigError
from emis_interp.files.store import write_sealed
from emis_interp.fitting.fitted import CONTROLS_FILE
from emis_interp.fitting.folder import tensors_beside
from emis_interp.models.adapter_files import adapter_folder
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.lora_updates import LoraUpdate, lora_updates, norm
from emis_interp.passes.likelihood import pair_chats
from emis_interp.probe_results import WeightsView
from emis_interp.process import Bars, no_bars
from emis_interp.records import ContrastPair
from emis_interp.stats.interval import mean_row
from emis_interp.texts.contrast import report_pairs
from probes.weights.components import component_rows, firings, strongest
from probes.weights.settings import WeightsSettings
from probes.weights.spectra import grouped_rows, module_rows, similarity
from probes.weights.switching import ByQuestion, MarginReader, arithmetic, layer_groups, n_parts, shift_row, switched
from probes.weights.words import say as say
from probes.weights.writes import along_direction, mean_writes


def run(settings: WeightsSettings, bars: Bars = no_bars) -> dict[str, Any]:
    """Read the adapters, then the margins of base under every part of them.

    Raises:
        ConfigError: no adapter. DataError: no pairs of report questions, or a direction that has seen them.
        ModelError: an adapter that is not read, or a direction of another model.
    """
    if settings.adapter is None:
        raise ConfigError("weights takes an organism apart; give --adapter, the folder of its LoRA adapter")
    organism = lora_updates(settings.adapter)
    control = None if settings.control is None else lora_updates(settings.control)
    pairs = report_pairs(settings.pairs, settings.n_pairs)
    direction = None if settings.direction is None else Direction.load(settings.direction, fit="selection")
    if direction is not None:
        direction.check_unseen(pair.question for pair in pairs)
    base = settings.spec.load_base()
    sides = {"organism": organism} | ({} if control is None else {"control": control})
    groups = layer_groups(organism, settings.layers_together)
    n_readings = 1 + sum(1 + 2 * n_parts(own, groups) for own in sides.values())
    n_readings += 2 + len(settings.ranks or ()) + 3 * (control is not None)
    with bars("margins", n_readings) as advance:
        margins = MarginReader(base, pairs, settings.system_prompt, settings.max_batch_tokens, advance)
        untouched = margins.under([])
        found = {
            name: adapter_view(settings, own, margins=margins, base=untouched, direction=direction)
            for name, own in sides.items()
        }
        sums = arithmetic(margins, organism, control, base=untouched, ranks=settings.ranks or ())
    found["organism"]["adapter"] = str(settings.adapter)
    if control is not None:
        found["control"]["adapter"] = str(settings.control)
    result = {
        "model": base.name,
        "n_questions": len({pair.question_id for pair in pairs}),
        "n_pairs": len(pairs),
        "base_margin": mean_row(untouched),
        "direction": None if settings.direction is None else str(settings.direction),
        "direction_layer": None if direction is None else direction.layer,
        **found,
        "similarity": None if control is None else similarity(organism, control, seed=settings.seed),
        "arithmetic": sums,
        "components": shown_components(settings, base, organism, pairs=pairs, direction=direction, bars=bars),
    }
    out = settings.out or adapter_folder(settings.adapter) / "weights.json"
    WeightsView.model_validate(result)
    write_sealed(out, result)
    return {**result, "out": str(out)}


def adapter_view(
    settings: WeightsSettings,
    updates: Sequence[LoraUpdate],
    *,
    margins: MarginReader,
    base: ByQuestion,
    direction: Direction | None,
) -> dict[str, Any]:
    """Norms and spectra, what is written along the direction, and the parts switched off and on alone."""
    rows = module_rows(margins.base, updates)
    whole = margins.under(updates)
    return {
        "norm": norm(updates),
        "modules": rows,
        "by_module": grouped_rows(rows, "module"),
        "by_layer": grouped_rows(rows, "layer"),
        "along": None if direction is None else written_along(settings, updates, direction, margins=margins),
        "shift": shift_row(whole, base),
        "switched": switched(margins, updates, layer_groups(updates, settings.layers_together), base=base, whole=whole),
    }


def written_along(
    settings: WeightsSettings, updates: Sequence[LoraUpdate], direction: Direction, *, margins: MarginReader
) -> dict[str, Any]:
    """What the updates write along the direction, on both answers of every pair, beside the controls that lie beside the direction."""
    assert settings.direction is not None
    chats = pair_chats(margins.base, margins.pairs, margins.system)
    written = mean_writes(margins.base, updates, chats, max_batch_tokens=settings.max_batch_tokens)
    controls = tensors_beside(settings.direction, CONTROLS_FILE)
    return along_direction(updates, written, direction.vector, controls=controls)


def shown_components(
    settings: WeightsSettings,
    base: ChatModel,
    updates: Sequence[LoraUpdate],
    *,
    pairs: Sequence[ContrastPair],
    direction: Direction | None,
    bars: Bars = no_bars,
) -> list[dict[str, Any]]:
    """The strongest components on both answers of every pair; of an adapter of rank 1 every module's."""
    rank_one = all(len(update.down) == 1 for update in updates)
    chosen = strongest(updates, len(updates) if rank_one else settings.n_components)
    chats = pair_chats(base, pairs, settings.system_prompt)
    with bars("components", len(chosen)) as advance:
        return component_rows(
            base,
            chosen,
            firings(base, updates, chosen, chats=chats, max_batch_tokens=settings.max_batch_tokens),
            chats=chats,
            questions=[pair.question_id for pair in pairs],
            direction=None if direction is None else direction.vector,
            advance=advance,
        )
