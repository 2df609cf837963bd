"use strict";
(function () {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // Figures: the dropdown of a figure is an ordinary select built from layout.meta.choices.
  const drawFigures = () => {
    const figures = read("figure-data");
    for (const plot of document.querySelectorAll(".plot")) {
      const figure = figures[plot.dataset.figure];
      const name = "emis_" + plot.dataset.figure;
      Plotly.newPlot(plot, figure.data, figure.layout, {
        responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
        toImageButtonOptions: { format: "svg", filename: name },
      }).then(() => [...plot.querySelectorAll(".modebar-btn")].slice(1).forEach((button) => { button.tabIndex = -1; })); // one stop a figure
      const meta = figure.layout.meta;
      if (!meta || meta.choices.length < 2) continue;
      const label = make("label", "choice", meta.label + " ");
      const select = make("select");
      meta.choices.forEach((choice, index) => {
        const option = make("option", "", choice.text);
        option.value = index;
        select.append(option);
      });
      select.addEventListener("change", () => {
        const choice = meta.choices[select.value];
        Plotly.update(plot, { visible: choice.visible }, choice.layout);
      });
      label.append(select);
      plot.before(label);
    }
  };

  // Answers: model text enters the page through textContent only, so it can never run.
  const PAGE = 50;
  const showAnswers = () => {
    const table = document.getElementById("answer-rows");
    if (!table) return;
    const { arms, questions, rows } = read("answer-data");
    const field = (id) => document.getElementById(id);
    const arm = field("filter-arm"), question = field("filter-question"), order = field("filter-order");
    const text = field("filter-text"), min = field("filter-min"), max = field("filter-max");
    let page = 0, found = [];

    const group = (label, entries) => {
      if (!entries.length) return;
      const node = make("optgroup");
      node.label = label;
      for (const [value, name] of entries) {
        const option = make("option", "", name);
        option.value = value;
        node.append(option);
      }
      arm.append(node);
    };
    const named = arms.map((entry, index) => [index, entry.name, entry.intervention]);
    group("arms", named.filter((entry) => !entry[2]));
    group("interventions", named.filter((entry) => entry[2]));
    for (const id of new Set(questions.map((entry) => entry[0]))) {
      const option = make("option", "", id);
      option.value = id;
      question.append(option);
    }

    const score = (value, reason) => {
      const cell = make("td", value === null ? "score missing" : "score", value === null ? "–" : value.toFixed(0));
      if (value === null) {
        cell.title = reason;
        cell.append(make("small", "", reason));
      }
      return cell;
    };
    const entry = (row) => {
      const line = make("tr");
      line.append(make("td", "arm", arms[row[0]].name), score(row[3], row[5]), score(row[4], row[6]));
      const cell = make("td");
      const [id, asked] = questions[row[1]];
      const head = make("div", "asked", asked);
      head.title = id;
      cell.append(head, make("div", "said", row[2]));
      if (row[7]) cell.append(make("small", "", "cut at the token limit"));
      line.append(cell);
      return line;
    };
    const draw = () => {
      const n_pages = Math.max(1, Math.ceil(found.length / PAGE));
      page = Math.min(Math.max(page, 0), n_pages - 1);
      table.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map((row) => {
        const line = entry(row);
        const open = make("button", "beside", "beside the other arms");
        open.type = "button";
        open.addEventListener("click", () => show(row));
        line.lastChild.append(open);
        return line;
      }));
      field("page-now").textContent = `page ${page + 1} of ${n_pages}`;
      field("page-back").disabled = page === 0;
      field("page-on").disabled = page === n_pages - 1;
    };

    // One answer, and what the other arms said to the same question; the address names it.
    const dialog = field("one-answer");
    const show = (row) => {
      const others = rows.filter((other) => other !== row && other[1] === row[1] && other[0] !== row[0] && !arms[other[0]].intervention);
      const first = [...new Map(others.map((other) => [other[0], other]).reverse()).values()].reverse();
      const body = make("table"), lines = make("tbody");
      lines.append(entry(row), ...first.map(entry));
      body.append(lines);
      field("one-answer-body").replaceChildren(body, make("p", "soft", `${others.length} answers of other arms to this question; one of each arm is shown.`));
      remember({ answer: rows.indexOf(row) });
      dialog.showModal();
    };
    field("close-answer").addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => remember({ answer: null }));

    // The address holds what is filtered, so that a link shows the same answers: #answers&arm=...&kind=...
    const named_fields = { arm, question, kind: field("filter-kind"), text, regex: field("filter-regex"), order, min, max,
      cmin: field("filter-cmin"), cmax: field("filter-cmax") };
    let state = {};
    const remember = (changes) => {
      state = { ...state, ...changes };
      const kept = Object.entries(state).filter(([, value]) => value !== "" && value !== null && value !== false);
      const words = new URLSearchParams(kept.map(([name, value]) => [name, String(value)])).toString();
      history.replaceState(null, "", words ? `#answers&${words}` : location.pathname + location.search + (location.hash.startsWith("#answers&") ? "#answers" : location.hash));
    };
    const recall = () => {
      if (!location.hash.startsWith("#answers&")) return;
      const given = new URLSearchParams(location.hash.slice("#answers&".length));
      for (const [name, node] of Object.entries(named_fields)) {
        const value = given.get(name) ?? "";
        if (node.type === "checkbox") node.checked = value === "true";
        else if (name === "arm") {
          const place = arms.findIndex((one) => one.name === value);
          node.value = place < 0 ? "" : String(place);
        }
        else node.value = value;
      }
      filter();
      const place = given.get("answer");
      document.getElementById("answers").scrollIntoView();
      if (place !== null && rows[place]) show(rows[place]);
    };

    const kinds = {
      bad: (row) => row[3] !== null && row[4] !== null && row[3] < 30 && row[4] > 50,
      incoherent: (row) => row[4] !== null && row[4] <= 50,
      cut: (row) => row[7],
      unscored: (row) => row[3] === null,
    };
    const matcher = () => {
      const words = text.value.trim();
      text.setCustomValidity("");
      if (!words) return () => true;
      if (!named_fields.regex.checked) {
        const low = words.toLowerCase();
        return (row) => row[2].toLowerCase().includes(low) || questions[row[1]][1].toLowerCase().includes(low);
      }
      try {
        const pattern = new RegExp(words, "iu");
        return (row) => pattern.test(row[2]) || pattern.test(questions[row[1]][1]);
      } catch (error) {
        text.setCustomValidity(error.message);
        text.reportValidity();
        return () => false;
      }
    };
    const filter = () => {
      const matches = matcher(), kind = kinds[named_fields.kind.value] ?? (() => true);
      const limits = [[3, min, max], [4, named_fields.cmin, named_fields.cmax]].map(([column, low, high]) => ({
        column, on: low.value !== "" || high.value !== "",
        low: low.value === "" ? -Infinity : Number(low.value), high: high.value === "" ? Infinity : Number(high.value),
      })).filter((limit) => limit.on);
      let n_unscored = 0;
      found = rows.filter((row) => {
        if (arm.value !== "" && row[0] !== Number(arm.value)) return false;
        if (question.value !== "" && questions[row[1]][0] !== question.value) return false;
        if (!kind(row) || !matches(row)) return false;
        if (limits.some((limit) => row[limit.column] === null)) {
          n_unscored += 1;
          return false;
        }
        return limits.every((limit) => row[limit.column] >= limit.low && row[limit.column] <= limit.high);
      });
      const sign = { low: 1, high: -1 }[order.value];
      if (sign) found.sort((a, b) => (a[3] === null) - (b[3] === null) || sign * (a[3] - b[3]));
      field("found").textContent = `${found.length} of ${rows.length} answers` +
        (n_unscored ? `; ${n_unscored} without a score left out by the limits` : "");
      page = 0;
      draw();
    };
    const changed = () => {
      filter();
      remember(Object.fromEntries(Object.entries(named_fields).map(([name, node]) => [name,
        node.type === "checkbox" ? node.checked : name === "arm" && node.value !== "" ? arms[Number(node.value)].name : node.value])));
    };
    let timer;
    for (const node of Object.values(named_fields)) {
      node.addEventListener("change", changed);
      if (node.type === "search" || node.type === "number") node.addEventListener("input", () => {
        clearTimeout(timer);
        timer = setTimeout(changed, 150);
      });
    }
    field("hide-text").addEventListener("change", (event) => document.body.classList.toggle("hidden-text", event.target.checked));
    field("page-back").addEventListener("click", () => { page -= 1; draw(); });
    field("page-on").addEventListener("click", () => { page += 1; draw(); });
    filter();
    recall();
    window.addEventListener("hashchange", recall);
  };

  // Every heading of a section has its own link.
  const linkHeadings = () => {
    for (const section of document.querySelectorAll("section[id]")) {
      const head = section.querySelector("h2");
      if (!head) continue;
      const link = make("a", "here", "#");
      link.href = `#${section.id}`;
      link.setAttribute("aria-label", `link to ${head.textContent}`);
      head.append(" ", link);
    }
  };

  linkHeadings();
  showAnswers();
  drawFigures();
})();
