"""Turns what a run has measured into its figures, by name; a figure without numbers is not there."""

import plotly.graph_objects as go

from emis_interp.report.contents import Contents
from emis_interp.report.figures import loss_figure, margin_groups_figure, margins_figure
from emis_interp.report.figures_ablation import ablation_figure
from emis_interp.report.figures_answers import answers_figure
from emis_interp.report.figures_contrasts import choice_forest, rate_forest
from emis_interp.report.figures_direction import layers_figure
from emis_interp.report.figures_geometry import angles_figure
from emis_interp.report.figures_interventions import steering_figure
from emis_interp.report.figures_judge import calibration_figure
from emis_interp.report.figures_probes import monitor_figure, readers_figure
from emis_interp.report.figures_projections import projections_figure
from emis_interp.report.figures_questions import questions_figure
from emis_interp.report.figures_rates import described_rates, thresholds_figure
from emis_interp.report.figures_transfer import transfer_figure
from emis_interp.report.further import further_figures
from emis_interp.report.style import ArmStyle, arm_styles
from emis_interp.results import Estimate


def styles_of(contents: Contents) -> dict[str, ArmStyle]:
    """The style of every arm, which the arm's models share."""
    styles = arm_styles(contents.arms)
    return styles | {model: styles[arm] for model, arm in contents.arm_of.items()}


def figures(contents: Contents) -> dict[str, go.Figure]:
    """The figures for which there are numbers, by name, in the order of the page."""
    direction, probes, styles = contents.direction, contents.probes, styles_of(contents)
    drawn = {
        "rates": described_rates(contents, styles),
        "rate_contrasts": rate_forest(contents, styles),
        "answers": answers_figure(contents, styles),
        "questions": questions_figure(contents, styles),
        "thresholds": thresholds_figure(contents, styles),
        "calibration": calibration_figure(contents),
        "margins": margins_figure(contents, styles),
        "margin_groups": margin_groups_figure(contents, styles),
        "choices": choice_forest(contents, styles),
        "layers": layers_figure(direction, _words(contents)) if direction else None,
        "angles": angles_figure(direction, styles) if direction else None,
        "transfer": transfer_figure(direction) if direction else None,
        "projections": projections_figure(direction.projections, styles)
        if direction and direction.projections
        else None,
        "steering": steering_figure(contents, styles),
        "ablation": ablation_figure(contents, styles),
        "readers": readers_figure(probes) if probes else None,
        "monitor": monitor_figure(probes, styles) if probes else None,
        **further_figures(contents.further),
        "loss": loss_figure(contents.training, styles),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _words(contents: Contents) -> Estimate | None:
    """AUROC of a bag of words on the contrast texts, where the probe stage measured it."""
    found = contents.probes.classifier.figures if contents.probes else []
    return next((one.auroc for one in found if one.name == "text" and one.auroc.value is not None), None)
