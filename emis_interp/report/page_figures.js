// Figures: drawn when they come near the window, all of them before printing; their dropdown is a select made from layout.meta.choices.

const MOST_TO_LIST = 300;
const figures = document.querySelector(".plot") ? Figures.all() : {};
const plots = [...document.querySelectorAll(".plot")].filter((plot) => figures[plot.dataset.figure]);
const choosers = new Map();

let library = null;
const load_library = () => {
  library ??= unpack("library").then((code) => {
    const script = make("script", "", code); // runs now: the policy allows it by its hash
    document.head.append(script);
    script.remove();
    if (!window.Plotly) throw new Error("The library that draws figures did not run.");
  });
  return library;
};

// A point that stands for answers has their filter as its customdata, or as the last entry of it.
const filter_of = (customdata) => {
  const words = Array.isArray(customdata) ? customdata.at(-1) : customdata;
  return typeof words === "string" && words.includes("=") ? words : null;
};
const filters_in = (customdata) => (Array.isArray(customdata) ? customdata : [customdata]).flatMap((entry) => {
  const cells = Array.isArray(entry) && (entry.some(Array.isArray) || entry.every(filter_of)); // a row of a heat map
  return cells ? filters_in(entry) : filter_of(entry) ?? [];
});

const choose = (plot) => {
  const choice = figures[plot.dataset.figure].layout.meta.choices[choosers.get(plot).value];
  return Plotly.update(plot, { visible: choice.visible }, choice.layout);
};
const draw = (plot) => {
  if (plot.dataset.drawn) return;
  plot.dataset.drawn = "yes";
  const figure = figures[plot.dataset.figure];
  plot.replaceChildren();
  Plotly.newPlot(plot, figure.data, Figures.layoutFor(figure, plot), {
    responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { format: "svg", filename: "emis_" + plot.dataset.figure },
  }).then(() => [...plot.querySelectorAll(".modebar-btn")].slice(1).forEach((one) => { one.tabIndex = -1; })); // one stop a figure
  plot.style.minHeight = "";
  if (choosers.has(plot) && choosers.get(plot).value !== "0") choose(plot);
  if (!field("answer-data")) return; // a page without answers
  const pointed = (event) => event.points.map((point) => filter_of(point.customdata)).find(Boolean);
  plot.on("plotly_hover", (event) => plot.classList.toggle("has-answers", Boolean(pointed(event))));
  plot.on("plotly_unhover", () => plot.classList.remove("has-answers"));
  plot.on("plotly_click", (event) => {
    const words = pointed(event);
    if (words) show_behind(words, plot);
  });
};
const draw_soon = async (plot) => {
  try {
    await load_library();
  } catch (error) {
    const instead = "The caption below says what the figure shows; its numbers are in the files beside this page.";
    plot.replaceChildren(make("p", "absent", `${error.message} ${instead}`));
    return;
  }
  setTimeout(() => draw(plot)); // one figure a task, so that the page answers between them
};

// The dropdown, and beside it the points as a list: what the mouse opens by a click, the keyboard opens from here.
const choices_of = (plot) => {
  const { meta } = figures[plot.dataset.figure].layout;
  if (!meta || !meta.choices || meta.choices.length < 2) return;
  const label = make("label", "choice", meta.label + " ");
  const select = make("select");
  meta.choices.forEach((choice, index) => {
    const option = make("option", "", choice.text);
    option.value = index;
    select.append(option);
  });
  select.addEventListener("change", () => {
    const { text } = meta.choices[select.value];
    remember({ [`fig-${plot.dataset.figure}`]: select.value === "0" ? null : text }, plot.closest("section[id]")?.id);
    if (plot.dataset.drawn) choose(plot);
  });
  choosers.set(plot, select);
  label.append(select);
  plot.before(label);
};
const is_single = (given) => given.has("answer") || (given.has("min") && given.get("min") === given.get("max"));
const points_of = (plot) => {
  const found = [...new Set(figures[plot.dataset.figure].data.flatMap((trace) => filters_in(trace.customdata)))]
    .filter((words) => !is_single(new URLSearchParams(words))); // single answers are in the table
  if (!found.length || !field("answer-data")) return;
  const label = make("label", "choice points", "answers behind ");
  const select = make("select");
  found.slice(0, MOST_TO_LIST).forEach((words) => {
    const option = make("option", "", in_words(words));
    option.value = words;
    select.append(option);
  });
  label.append(select);
  const open = button("show them", () => show_behind(select.value, plot));
  const row = make("p", "choice points");
  row.append(label, " ", open);
  const n_more = found.length - MOST_TO_LIST;
  if (n_more > 0) row.append(` ${n_more} more points: by a click on them, or by the filter of the answers`);
  plot.after(row);
};

const recall_choices = () => {
  for (const [plot, select] of choosers) {
    const named = address.values[`fig-${plot.dataset.figure}`];
    const { choices } = figures[plot.dataset.figure].layout.meta;
    const place = String(Math.max(0, choices.findIndex((choice) => choice.text === named)));
    if (select.value === place) continue;
    select.value = place;
    if (plot.dataset.drawn) choose(plot);
  }
};

const PRINTED_WIDTH = 680; // of A4 and of letter paper, within their margins
const show_figures = () => {
  for (const plot of plots) {
    plot.style.minHeight = `${Figures.layoutFor(figures[plot.dataset.figure], plot).height || 450}px`; // so that nothing moves when it is drawn
    choices_of(plot);
    points_of(plot);
  }
  if (!plots.length) return;
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      draw_soon(target);
    }
  }, { rootMargin: "600px" });
  plots.forEach((plot) => near.observe(plot));
  // Printing cannot wait for the library: whoever prints has touched a key or the mouse before, or has had the page open for a while.
  setTimeout(() => { load_library().catch(() => {}); }, 2000);
  for (const sign of ["keydown", "pointerdown", "pointermove", "wheel", "touchstart"]) {
    window.addEventListener(sign, () => { load_library().catch(() => {}); }, { once: true, passive: true });
  }
  window.addEventListener("beforeprint", () => {
    if (!window.Plotly) {
      load_library().catch(() => {});
      const words = "This figure was not drawn yet when printing began; print again.";
      plots.filter((plot) => !plot.firstChild).forEach((plot) => plot.append(make("p", "absent not-yet", words)));
      return;
    }
    for (const plot of plots) {
      draw(plot);
      if (plot.offsetWidth > PRINTED_WIDTH) Plotly.relayout(plot, { width: PRINTED_WIDTH });
    }
  });
  window.addEventListener("afterprint", () => {
    if (window.Plotly) plots.filter((plot) => plot.dataset.drawn).forEach((plot) => Plotly.relayout(plot, { width: null, autosize: true }));
    document.querySelectorAll(".plot > .not-yet").forEach((words) => words.remove());
  });
};
