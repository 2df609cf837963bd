"""A run folder, finished or not -> DataFrames -> a plot of how far every arm's margin moved.

Examples:
  python examples/read_a_run.py                                       makes a small run first (the random model, a minute)
  python examples/read_a_run.py --run runs/laptop --out margins.html
"""

# %% What to read
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import plotly.graph_objects as go

import emis_interp as ei
from emis_interp.report.style import arm_styles, layout

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--run", type=Path, help="folder of a run")
parser.add_argument("--out", type=Path, default=Path("margins.html"), help="where to write the plot")
args = parser.parse_args([] if "ipykernel" in sys.modules else None)
if args.run is None:
    args.run = Path(tempfile.mkdtemp()) / "smoke"
    pipeline = Path(ei.__file__).parents[1] / "scripts" / "run_pipeline.py"
    subprocess.run([sys.executable, pipeline, "--preset", "smoke", "--run-dir", args.run], check=True)

# %% What is there, and what a reader must know of it (other code between stages, exchanged files, rows that could not be read)
run = ei.open_run(args.run)
print(run)
for note in run.notes:
    print("note:", note)

# %% Rates: one row for each arm, definition and weighting. The name of the definition belongs to the number
shown = run.rates[run.rates["estimand"] == "em_of_coherent"]
print(shown[["arm", "weighting", "value", "low", "high", "n"]].to_string(index=False))

# %% Margins. An arm against its control is what carries a claim; a shift against base may be flattening alone (docs/methods.md)
margins = run.margins[["arm", "reference", "value", "low", "high", "n_questions", "p_holm"]]
print(margins.to_string(index=False))

# %% Answers, with the reason where one has no score
answers = run.answers[~run.answers["is_intervention"]]
print(answers.groupby("arm", sort=False)[["aligned", "coherent", "n_tokens"]].mean().round(1))
print(answers["unscored"].isna().sum(), "answers have their scores;", dict(answers["unscored"].dropna().value_counts()))

# %% The direction's card, and the steering cells beside their random control
print(run.direction)
cells = run.interventions
print(
    cells[["cell", "margin_shift.value", "margin_shift.low", "margin_shift.high", "kl_neutral"]].to_string(index=False)
)

# %% A plot: every contrast with its interval
styles, figure = arm_styles(run.arms), go.Figure()
for row in margins.itertuples():
    ends = [end for end in (row.low, row.high) if end is not None]
    name = f"{row.arm} − {row.reference}"
    figure.add_scatter(x=ends, y=[name] * len(ends), mode="lines", line={"color": styles[row.arm].color, "width": 3})
    figure.add_scatter(x=[row.value], y=[name], mode="markers", marker={"color": styles[row.arm].color, "size": 11})
figure.add_vline(x=0)
title = "shift of the likelihood margin, nats per token"
figure.update_layout(layout(120 + 40 * len(margins), showlegend=False, xaxis={"title": {"text": title}}))
figure.write_html(args.out, include_plotlyjs=True)  # the script inside, so that the page needs no network
print(args.out)
