"use strict";
// Figures: their layout on a phone, their numbers as a table and as CSV, and pictures of them with title and caption. Text is only ever
// set as textContent.
const Figures = (function () {
  const NARROW = 560, WIDE = 900, SVG = "http://www.w3.org/2000/svg", MOST_ROWS = 1000;
  const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
  let kept = null;
  const all = () => (kept ??= JSON.parse(document.getElementById("figure-data").textContent));
  const copy = (value) => JSON.parse(JSON.stringify(value));
  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const wordsOf = (figure) => ({ title: "", caption: "", choices: [], narrow: {}, table: { columns: [], rows: [] }, ...(figure.layout.meta ?? {}) });

  // `yaxis.tickfont.size`, `annotations[0].x`: what lies between is made.
  const put = (target, path, value) => {
    const keys = path.split(/[.[\]]+/).filter(Boolean), last = keys.pop();
    for (const key of keys) target = target[key] ??= {};
    target[last] = value;
  };
  const wrapped = (text, most) => {
    if (!text || text.includes("<")) return text;
    const lines = [""];
    for (const word of text.split(" ")) {
      if (lines.at(-1) && lines.at(-1).length + word.length >= most) lines.push("");
      lines.push(`${lines.pop()} ${word}`.trim());
    }
    return lines.join("<br>");
  };
  const wrapAxes = (layout) => {
    for (const [key, axis] of Object.entries(layout)) {
      if (/^xaxis\d*$/.test(key) && axis.title?.text) axis.title.text = wrapped(axis.title.text, 38);
    }
  };
  // Labels of rows as notes over them: ticks beside the plot take its room, ticks inside it are given room by the range of the data.
  const shortLines = (text, most) => {
    const parts = text.replaceAll("<br>", " ").split(" ").flatMap((word) => word.match(new RegExp(`.{1,${most}}`, "gsu")) ?? []);
    const lines = (wrapped(parts.join(" "), most) ?? "").split("<br>");
    return lines.length > 2 ? `${lines[0]}<br>${lines[1]} …` : lines.join("<br>");
  };
  const labelsAbove = (layout, axis, shift, most) => {
    const { tickvals = [], ticktext = [] } = layout[axis] ?? {}, suffix = axis.slice("yaxis".length);
    layout[axis] = { ...layout[axis], showticklabels: false, ticks: "" };
    const notes = tickvals.map((y, i) => ({
      x: 0, xref: `x${suffix} domain`, xanchor: "left", y, yref: `y${suffix}`, yanchor: "middle", yshift: shift, text: shortLines(ticktext[i], most), align: "left", showarrow: false, font: { size: 12 },
    }));
    layout.annotations = [...(layout.annotations ?? []), ...notes];
  };
  const isNarrow = (plot) => plot.clientWidth > 0 && plot.clientWidth < NARROW;
  const chosen = (plot) => Number(plot.closest("figure")?.querySelector(".choice:not(.points) select")?.value ?? 0);

  /** The layout of a figure in the place where it is drawn. */
  const layoutFor = (figure, plot) => {
    const layout = copy(figure.layout), words = wordsOf(figure);
    const choice = words.choices[chosen(plot)];
    for (const [path, value] of Object.entries(choice?.layout ?? {})) put(layout, path, value);
    if (!isNarrow(plot)) return layout;
    layout.legend = { ...layout.legend, font: { size: 11 } };
    const { labels_above, ...changes } = words.narrow;
    for (const [path, value] of Object.entries(changes)) put(layout, path, value);
    for (const [axis, shift] of Object.entries(labels_above ?? {})) labelsAbove(layout, axis, ...shift);
    wrapAxes(layout);
    return layout;
  };

  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n;\t|]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = (table) => [table.columns, ...table.rows].map((row) => row.map(cell).join(",") + "\r\n").join("");

  // Words of a picture, broken where the line is full.
  const linesOf = (text, font, width) => {
    const pen = document.createElement("canvas").getContext("2d"), lines = [""];
    pen.font = font;
    for (const word of text.split(/\s+/)) {
      for (let rest = word; rest;) {
        const line = lines.at(-1), more = line ? `${line} ${rest}` : rest;
        if (pen.measureText(more).width <= width) { lines[lines.length - 1] = more; break; }
        if (line) { lines.push(""); continue; }
        let n = rest.length;
        while (n > 1 && pen.measureText(rest.slice(0, n)).width > width) n -= 1;
        lines[lines.length - 1] = rest.slice(0, n);
        lines.push("");
        rest = rest.slice(n);
      }
    }
    return lines.filter(Boolean);
  };

  /** A figure as the text of an SVG, with its title above and its caption below; `choice` is the one of its dropdown. */
  const picture = async (figure, choice) => {
    const words = wordsOf(figure), data = copy(figure.data), layout = copy(figure.layout), now = words.choices[choice];
    now?.visible.forEach((visible, index) => { data[index].visible = visible; });
    for (const [path, value] of Object.entries(now?.layout ?? {})) put(layout, path, value);
    const height = layout.height ?? 400;
    const url = await Plotly.toImage({ data, layout }, { format: "svg", width: WIDE, height });
    const drawn = new DOMParser().parseFromString(decodeURIComponent(url.slice(url.indexOf(",") + 1)), "image/svg+xml").documentElement;
    const title = linesOf(now?.title ?? words.title, `600 16px ${FONT}`, WIDE - 40);
    const caption = linesOf(words.caption, `12px ${FONT}`, WIDE - 40);
    const top = title.length ? 22 * title.length + 18 : 0, whole = top + height + (caption.length ? 17 * caption.length + 20 : 0);
    const page = document.createElementNS(SVG, "svg");
    const attributes = (node, values) => Object.entries(values).forEach(([name, value]) => node.setAttribute(name, value));
    attributes(page, { xmlns: SVG, width: WIDE, height: whole, viewBox: `0 0 ${WIDE} ${whole}`, role: "img" });
    const add = (tag, values, text) => {
      const node = document.createElementNS(SVG, tag);
      attributes(node, values);
      if (text !== undefined) node.textContent = text;
      page.append(node);
    };
    add("title", {}, now?.title ?? words.title);
    add("desc", {}, words.caption);
    add("rect", { width: WIDE, height: whole, fill: "#ffffff" });
    title.forEach((line, i) => add("text", { x: 20, y: 26 + 22 * i, "font-family": FONT, "font-size": 16, "font-weight": 600, fill: "#1f2933" }, line));
    attributes(drawn, { y: top });
    page.append(drawn);
    caption.forEach((line, i) => add("text", { x: 20, y: top + height + 18 + 17 * i, "font-family": FONT, "font-size": 12, fill: "#56616e" }, line));
    return new XMLSerializer().serializeToString(page);
  };

  const save = (blob, name) => {
    const link = make("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const asPng = (svg) => new Promise((resolve, reject) => {
    const image = new Image(), url = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
    image.onload = () => {
      const canvas = make("canvas");
      canvas.width = 2 * image.width;
      canvas.height = 2 * image.height;
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      URL.revokeObjectURL(url);
      canvas.toBlob(resolve, "image/png");
    };
    image.onerror = reject;
    image.src = url;
  });

  const shownNumber = (value) => (typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(4) : String(value ?? "–"));
  const tableOf = (table) => {
    const node = make("table"), head = make("tr"), body = make("tbody"), frame = make("div", "scroll tall");
    for (const name of table.columns) head.append(make("th", "", name));
    for (const row of table.rows.slice(0, MOST_ROWS)) {
      const line = make("tr");
      for (const value of row) line.append(make("td", "", shownNumber(value)));
      body.append(line);
    }
    const top = make("thead");
    top.append(head);
    node.append(top, body);
    if (table.rows.length > MOST_ROWS) node.append(make("caption", "", `The first ${MOST_ROWS} of ${table.rows.length} rows; the CSV has all.`));
    frame.append(node);
    return frame;
  };

  /** What stands below a figure: its files, and its numbers, which are its alternative in text. */
  const addTools = (plot, library) => {
    const name = plot.dataset.figure, figure = all()[name], box = plot.closest("figure");
    if (!figure || !box) return;
    const words = wordsOf(figure), tools = make("p", "tools");
    const button = (text, what, action) => {
      const node = make("button", "", text);
      node.type = "button";
      node.setAttribute("aria-label", `${what} of the figure: ${words.title || name}`);
      node.addEventListener("click", action);
      tools.append(node);
    };
    const svg = async () => {
      await library();
      return picture(figure, chosen(plot));
    };
    if (words.table.columns.length) button("CSV", "numbers", () => save(new Blob([csv(words.table)], { type: "text/csv" }), `emis_${name}.csv`));
    button("SVG", "vector picture", async () => save(new Blob([await svg()], { type: "image/svg+xml" }), `emis_${name}.svg`));
    button("PNG", "picture", async () => save(await asPng(await svg()), `emis_${name}.png`));
    box.append(tools);
    if (!words.table.columns.length) return;
    const details = make("details", "numbers");
    details.append(make("summary", "", `The ${words.table.rows.length} rows of numbers behind this figure`));
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(tableOf(words.table));
    });
    box.append(details);
  };

  /** Titles follow the choice; the layout follows the width. */
  const follow = () => {
    const plots = [...document.querySelectorAll(".plot")], was = new Map(plots.map((plot) => [plot, isNarrow(plot)]));
    document.addEventListener("change", (event) => {
      const box = event.target.closest?.(".choice:not(.points)")?.closest("figure"), plot = box?.querySelector(".plot");
      const choice = plot && wordsOf(all()[plot.dataset.figure]).choices[chosen(plot)];
      if (!choice) return;
      const finding = box.querySelector(".finding");
      if (choice.title && finding) finding.textContent = choice.title;
      if (plot.data && isNarrow(plot)) Plotly.relayout(plot, layoutFor(all()[plot.dataset.figure], plot));
    });
    let timer;
    window.addEventListener("resize", () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        for (const plot of plots) {
          if (was.get(plot) === isNarrow(plot)) continue;
          was.set(plot, isNarrow(plot));
          if (plot.data) Plotly.react(plot, plot.data, layoutFor(all()[plot.dataset.figure], plot));
        }
      }, 200);
    });
  };

  /** `library`: a promise of plotly, for pages that load it late. */
  const begin = (library = async () => {}) => {
    document.querySelectorAll(".plot").forEach((plot) => addTools(plot, library));
    follow();
  };
  return { all, layoutFor, picture, csv, begin };
})();
