// The table of answers: model text enters the page through textContent only, so it can never run.

const ROWS_A_PAGE = 50;

const score_cell = (value, reason) => {
  const cell = make("td", value === null ? "score missing" : "score", value === null ? "–" : value.toFixed(0));
  if (value === null) {
    cell.title = reason;
    cell.append(make("small", "said", reason));
  }
  return cell;
};
const own_link = (row) => {
  const link = make("a", "own", "link");
  link.href = address_with({ answer: key_of(row), behind: null }, "answers");
  link.setAttribute("aria-label", `link to answer ${key_of(row)}`);
  return link;
};
const answer_line = (row) => {
  const line = make("tr"), cell = make("td"), head = make("div", "asked", row.question.text), under = make("div", "beside");
  head.title = row.question.id;
  cell.append(head, make("div", "said", row.answer));
  if (row.cut) under.append(make("small", "", "cut at the token limit"));
  under.append(button("beside the other arms", () => remember_and_show(row)), " ", own_link(row));
  cell.append(under);
  line.append(make("td", "arm", row.arm.name), score_cell(row.aligned, row.why_aligned), score_cell(row.coherent, row.why_coherent), cell);
  return line;
};

const show_answers = () => {
  const table = field("answer-rows"), heads = [...document.querySelectorAll("#answers th[data-order]")];
  const controls = Object.fromEntries(FILTERS.map((name) => [name, field(`filter-${name}`)]));
  const option = (value, text = value) => {
    const node = make("option", "", text);
    node.value = value;
    return node;
  };
  const group = (label, names) => {
    if (!names.length) return;
    const node = make("optgroup");
    node.label = label;
    node.append(...names.map((name) => option(name)));
    controls.arm.append(node);
  };
  group("arms", [...new Set(store.arms.filter((arm) => !arm.intervention).flatMap((arm) => [arm.of, arm.name]))]);
  group("interventions", store.arms.filter((arm) => arm.intervention).map((arm) => arm.name));
  controls.question.append(...[...new Set(store.questions.map((one) => one.id))].map((id) => option(id)));
  controls.label.append(...store.labels.map((label) => option(label)));

  let page = 0, found = [];
  const draw_rows = () => {
    const n_pages = Math.max(1, Math.ceil(found.length / ROWS_A_PAGE));
    page = Math.min(Math.max(page, 0), n_pages - 1);
    table.replaceChildren(...found.slice(page * ROWS_A_PAGE, (page + 1) * ROWS_A_PAGE).map(answer_line));
    field("page-now").textContent = `page ${page + 1} of ${n_pages}`;
    field("page-back").disabled = page === 0;
    field("page-on").disabled = page === n_pages - 1;
  };
  const value_of = (node) => (node.type === "checkbox" ? String(node.checked) : node.value);
  const fields_now = () => Object.fromEntries(FILTERS.map((name) => [name, value_of(controls[name])]));
  const filter = () => {
    const fields = fields_now(), told = select_answers(fields);
    found = told.found;
    controls.text.setCustomValidity(told.broken);
    if (told.broken) controls.text.reportValidity();
    const n = is_sampled() ? n_in_run(fields) : null;
    field("found").textContent = `${found.length} of ${store.rows.length} answers` + (is_sampled() ? " on this page" : "") +
      (n === null ? "" : `; ${n} of ${store.n_all} in ${store.whole}`) + left_out(told.n_unscored);
    for (const head of heads) {
      const now = { [head.dataset.order]: "ascending", [`-${head.dataset.order}`]: "descending" }[fields.order];
      if (now) head.setAttribute("aria-sort", now);
      else head.removeAttribute("aria-sort");
    }
    aim_side_links(fields);
    page = 0;
    draw_rows();
  };
  const changed = () => {
    filter();
    remember({ ...fields_now(), regex: controls.regex.checked }, "answers");
  };
  let timer;
  for (const node of Object.values(controls)) {
    node.addEventListener("change", changed);
    if (node.type === "search" || node.type === "number") node.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(changed, 150);
    });
  }
  for (const head of heads) {
    head.firstElementChild.addEventListener("click", () => {
      const name = head.dataset.order;
      controls.order.value = controls.order.value === name ? `-${name}` : name;
      changed();
    });
  }
  field("page-back").addEventListener("click", () => { page -= 1; draw_rows(); });
  field("page-on").addEventListener("click", () => { page += 1; draw_rows(); });

  const recall = () => {
    for (const [name, node] of Object.entries(controls)) {
      const value = name === "order" ? order_of(address.values.order) : address.values[name] ?? "";
      if (node.type === "checkbox") node.checked = value === "true";
      else node.value = value;
    }
    filter();
    const unknown = ["arm", "question", "label", "kind"].filter((name) => address.values[name] && !controls[name].value);
    const named = unknown.map((name) => `${name} ${address.values[name]}`).join(", ");
    if (named) field("found").textContent += `; the address names what is not here: ${named}`;
  };
  recall();
  return recall;
};

// Side pages have all answers of an arm; they are opened with the filter of now.
const side_address = (link, fields) => {
  const kept = Object.entries({ ...fields, hide: address.values.hide })
    .filter(([name, value]) => name !== "arm" && value && String(value) !== "false");
  const words = new URLSearchParams(kept.map(([name, value]) => [name, String(value)])).toString();
  return `${link.href.split("#")[0]}#answers${words && `&${words}`}`;
};
const side_links = (fields) => [...document.querySelectorAll("a.side")]
  .filter((link) => !fields.arm || is_arm({ name: link.dataset.arm, of: link.dataset.of }, fields.arm));
const aim_side_links = (fields) => {
  const meant = new Set(side_links(fields));
  for (const link of document.querySelectorAll("a.side")) {
    link.href = side_address(link, fields);
    link.parentElement.hidden = !meant.has(link);
  }
};
