"""Turns what changed in a model into parts of the report: diffs, lens, patches and updates of weights."""

from emis_interp.diff_results import AmplifiedContrast, ModelDiff, ProjectionView, TokenReading
from emis_interp.probe_results import AttributedPart, LensLayer, LensView, PatchView, WeightsView
from emis_interp.report.entries import Entry, estimate_entry, missing
from emis_interp.report.further_parts import (
    FurtherRow,
    FurtherTable,
    Shown,
    beside_row,
    counted,
    nulls_words,
    shift_entry,
    tokens_entry,
    value_words,
)
from emis_interp.report.style import number, percent, signed

ARITHMETIC = ("organism", "control", "organism minus control")
"""Sums of adapters that stand in the open; the table has the others."""
NO_CONTROL = "no control was given"
NO_ORGANISM = "base alone: no organism was given"
NATS = "Nats per token; brackets hold 95 % intervals over questions."


def diff(found: ModelDiff) -> Shown:
    rows = [_reading_row(found, reading) for reading in found.readings]
    tables = [_readings_table(found.readings)]
    if found.projection is not None:
        cell = found.projection.cells[0]
        unrelated = f"unrelated text {value_words(cell.unrelated)}"
        what = f"Cross-entropy of its own kind of text with the mean difference of the {cell.along} taken out, nats per token"
        rows.append(FurtherRow(what, shift_entry(cell.finetune_like), (unrelated, *_projected_nulls(found.projection))))
        tables.append(_projection_table(found.projection))
    scaled = missing("a verdict over all scales, no single number")
    rows.append(FurtherRow("The adapter scaled up", scaled, (found.amplification.verdict,)))
    tables.append(_amplification_table(found))
    return Shown(rows, tuple(table for table in tables if table.rows))


def _reading_row(found: ModelDiff, reading: TokenReading) -> FurtherRow:
    count = next(one for one in reading.counts if one.topic == found.primary_topic)
    said = "stated beforehand" if reading.primary else "not stated beforehand, p not corrected"
    controls = tuple(f"{name} {n}" for name, n in count.controls.items())
    beside = (*controls, *nulls_words(count.nulls, counted), count.verdict, said)
    figure = Entry(f"{count.count} of {count.n_top} tokens", (f"topic {count.topic}",))
    return FurtherRow(f"What changed on plain text, layer {found.layer}: {reading.what}", figure, beside)


def _readings_table(readings: list[TokenReading]) -> FurtherTable:
    rows = [
        (
            Entry(reading.what, (count.topic,)),
            Entry(f"{count.count} of {count.n_top}"),
            Entry(", ".join(f"{name} {n}" for name, n in count.controls.items()))
            if count.controls
            else missing(NO_CONTROL),
            Entry("; ".join(nulls_words(count.nulls, counted)))
            if count.nulls
            else missing("no random vectors were drawn"),
            tokens_entry(next(iter(reading.tokens.values()), [])),
        )
        for reading in readings
        for count in reading.counts
    ]
    columns = ("reading, topic", "tokens of the topic", "controls", "random vectors", "first tokens of the organism")
    return FurtherTable(
        "Every reading by topic", columns, rows, caption="p is of one topic in one reading; none is corrected."
    )


def _projected_nulls(found: ProjectionView) -> tuple[str, ...]:
    lines = [f"{figure}: {line}" for figure, kinds in found.nulls.items() for line in nulls_words(kinds, signed)]
    return (*lines, found.verdict)


def _projection_table(found: ProjectionView) -> FurtherTable:
    rows = [
        (
            Entry(cell.along),
            shift_entry(cell.finetune_like),
            shift_entry(cell.unrelated),
            Entry(signed(cell.beyond)),
            shift_entry(cell.first_minus, "this is the first vector"),
        )
        for cell in found.cells
    ]
    columns = (
        "taken out along",
        "its own kind of text",
        "unrelated text",
        "beyond unrelated",
        "first vector minus this",
    )
    before = f"{number(found.before.finetune_like)} and {number(found.before.unrelated)}"
    caption = (
        f"Change of cross-entropy, nats per token, in {found.n_finetune_like} and {found.n_unrelated} texts; before it, {before}. Brackets "
        "hold 95 % intervals over texts."
    )
    return FurtherTable("The difference projected out", columns, rows, caption=caption)


def _amplification_table(found: ModelDiff) -> FurtherTable:
    contrasts: dict[float, list[AmplifiedContrast]] = {}
    for one in found.amplification.contrasts:
        contrasts.setdefault(one.scale, []).append(one)
    organism = found.amplification.cells[0].arm if found.amplification.cells else None
    rows = []
    for cell in found.amplification.cells:
        against = contrasts.get(cell.scale, []) if cell.arm == organism else []
        beyond = cell.flattening.beyond if cell.flattening else None
        rows.append(
            (
                Entry(f"{cell.arm} x {cell.scale:g}"),
                shift_entry(cell.shift),
                shift_entry(beyond, "base has this slope at no temperature, or there are too few questions"),
                Entry("; ".join(f"{one.control} {value_words(one)}" for one in against))
                if against
                else missing("a control, or no control was given"),
                Entry(number(cell.kl)),
                shift_entry(cell.finetune_like),
                shift_entry(cell.unrelated),
                shift_entry(cell.entropy),
            )
        )
    columns = (
        "adapter",
        "margin against base",
        "beyond flattening",
        "margin minus control's",
        "KL to base, harmless prompts",
        "its own kind of text",
        "unrelated text",
        "entropy",
    )
    caption = f"{NATS} Texts: change of cross-entropy against base."
    return FurtherTable("The adapter scaled", columns, rows, caption=caption)


def lens(found: LensView) -> Shown:
    tables = tuple(
        table for table in (_layers_table(found), _attribution_table(found), _tokens_table(found)) if table.rows
    )
    last = found.lens[-1]
    if last.organism_shift is None:
        what = f"Margin that the lens reads at layer {last.layer}"
        rows = [FurtherRow(what, shift_entry(last.base), (NO_ORGANISM,))]
    else:
        what = f"Shift of the margin that the lens reads at the last layer, {last.layer}, nats per token"
        rows = [FurtherRow(what, shift_entry(last.organism_shift), (_control_words(last), _first_apart(found.lens)))]
    parts = [part for part in found.attribution if part.organism_shift is not None and part.part != "total"]
    if not parts:
        return Shown(rows, tables)
    most = max(parts, key=lambda part: abs(part.organism_shift.value or 0.0) if part.organism_shift else 0.0)
    chosen = f"the largest of {len(parts)} parts, chosen by what is shown"
    what = f"What {most.part} adds to the shift of the margin, nats per token"
    rows = [] if last.organism_shift is None else rows
    rows.append(FurtherRow(what, shift_entry(most.organism_shift), (_control_words(most), chosen)))
    return Shown(rows, tables)


def _control_words(row: AttributedPart | LensLayer) -> str:
    control = row.control_shift
    return NO_CONTROL if control is None else f"the same of the control {value_words(control)}"


def _first_apart(layers: list[LensLayer]) -> str:
    """From which layer on every interval of the organism's shift leaves 0 out."""
    apart = [layer.organism_shift is not None and layer.organism_shift.excludes() is True for layer in layers]
    if not apart[-1]:
        return "its interval does not exclude 0 there"
    first = len(apart) - next((place for place, one in enumerate(reversed(apart)) if not one), len(apart))
    return f"its interval excludes 0 from layer {layers[first].layer} on (layers are not corrected for their number)"


def _layers_table(found: LensView) -> FurtherTable:
    rows = [(Entry(str(layer.layer)), *_arms(layer)) for layer in found.lens]
    caption = f"{NATS} Margins that the final norm and head read from the residual stream behind each layer. Shifts are against base."
    return FurtherTable("The lens layer by layer", ("layer", *ARM_COLUMNS), rows, caption=caption)


def _attribution_table(found: LensView) -> FurtherTable:
    rows = [(Entry(part.part), *_arms(part)) for part in found.attribution]
    caption = f"{NATS} What each part of the model adds to the margin; the parts sum to the total to {found.sum_error:.1g} nats."
    return FurtherTable("The margin part by part", ("part", *ARM_COLUMNS), rows, caption=caption)


ARM_COLUMNS = ("base", "organism", "shift of the organism", "shift of the control")


def _arms(row: AttributedPart | LensLayer) -> tuple[Entry, ...]:
    return (
        shift_entry(row.base),
        shift_entry(row.organism, NO_ORGANISM),
        shift_entry(row.organism_shift, NO_ORGANISM),
        shift_entry(row.control_shift, NO_CONTROL),
    )


def _tokens_table(found: LensView) -> FurtherTable:
    rows = [
        (
            Entry(f"{one.of}, layer {one.layer}"),
            tokens_entry(one.top_tokens, one.no_tokens or "no tokens"),
            tokens_entry(one.bottom_tokens, one.no_tokens or "no tokens"),
            missing("not set against control directions")
            if one.extremity is None
            else Entry(number(one.extremity.value, 1), nulls_words(one.extremity.controls, lambda x: number(x, 1))),
        )
        for one in found.tokens
    ]
    columns = ("vector", "tokens that it raises", "tokens that it lowers", "largest logit")
    caption = "Largest logit in standard deviations over the vocabulary, beside what control directions reach."
    return FurtherTable("Vectors through the lens", columns, rows, caption=caption)


def patch(found: PatchView) -> Shown:
    rows = []
    for way in found.ways:
        if way.not_restored is not None:
            what = f"Patching {way.way}: share of the shift restored"
            rows.append(FurtherRow(what, missing(way.not_restored), (way.not_restored,)))
        for one in (one for one in way.correlation or [] if one.hook_point == "all"):
            figure = estimate_entry(one.spearman, number, "too few cells")
            what = f"Patching {way.way}: rank correlation of the first-order screen with exact patches"
            rows.append(FurtherRow(what, figure, (f"{one.n_cells} cells",)))
    cells = [
        (
            Entry(way.way),
            Entry(f"layer {cell.layer}, {cell.hook_point}, {cell.positions}"),
            shift_entry(cell.shift, "screened alone, not patched"),
            shift_entry(cell.estimated),
            estimate_entry(cell.restored, number, way.not_restored or "not patched"),
        )
        for way in found.ways
        for cell in way.cells
    ]
    columns = ("patched", "place", "shift of the margin", "first-order estimate", "share of the difference")
    caption = f"{NATS} The models differ by {value_words(found.difference)}."
    return Shown(rows, (FurtherTable("Every place patched", columns, cells, caption=caption),) if cells else ())


def weights(found: WeightsView) -> Shown:
    rows = []
    if found.organism.along is not None:
        rows.append(beside_row("Share of the update along the direction", found.organism.along.share))
    if found.similarity is not None:
        like = found.similarity
        null = f"rows permuted {signed(like.permuted.low)} to {signed(like.permuted.high)}, p {like.p:.2g}"
        rows.append(
            FurtherRow("Cosine of the organism's and the control's update", Entry(signed(like.cosine)), (null,))
        )
    for cell in (cell for cell in found.arithmetic.cells if cell.name in ARITHMETIC):
        kl = f"KL {number(cell.kl, 2)} nats on harmless prompts"
        rows.append(FurtherRow(f"Margin of base plus {cell.name}, nats per token", shift_entry(cell.shift), (kl,)))
    tables = (_sums_table(found), _switched_table(found), _components_table(found))
    return Shown(rows, tuple(table for table in tables if table.rows))


def _sums_table(found: WeightsView) -> FurtherTable:
    rows = [
        (Entry(f"base plus {cell.name}"), shift_entry(cell.shift), Entry(number(cell.kl, 2)))
        for cell in found.arithmetic.cells
    ]
    columns = ("weights", "margin against base", "KL to base, harmless prompts")
    return FurtherTable("Weight arithmetic", columns, rows, caption=NATS)


def _switched_table(found: WeightsView) -> FurtherTable:
    rows = [(Entry(part.name), shift_entry(part.off), shift_entry(part.alone)) for part in found.organism.switched]
    columns = ("part of the adapter", "margin without it minus the whole's", "margin of it alone minus base's")
    return FurtherTable("Parts of the adapter switched off", columns, rows, caption=NATS)


def _components_table(found: WeightsView) -> FurtherTable:
    rows = [
        (
            Entry(f"layer {one.layer}, {one.module}", (f"{percent(one.share)} of the module's update",)),
            tokens_entry([token.token for token in one.fires_on], "it fires on none"),
            tokens_entry(one.top_tokens, one.no_tokens or "no tokens"),
            shift_entry(one.misaligned_minus_aligned),
            missing("no direction was given") if one.write_cosine is None else Entry(signed(one.write_cosine)),
        )
        for one in found.components
    ]
    columns = ("component", "fires on", "writes", "firing, misaligned minus aligned", "cosine with the direction")
    caption = "The strongest singular component of each module; its sign is a convention of the file."
    return FurtherTable("Components of the update", columns, rows, caption=caption)
