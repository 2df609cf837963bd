// The side panel: the answers behind a point of a figure, and one answer in full beside those of the other arms.

const ANSWERS_IN_PANEL = 20;
let opened_from = null;

const panel_line = (name, value) => {
  const line = make("p", "soft");
  line.append(make("b", "", `${name} `), value);
  return line;
};
const scores_in_words = (row) => {
  const one = (name, value, reason) => `${name} ${value === null ? `– (${reason})` : value.toFixed(1)}`;
  const both = [one("aligned", row.aligned, row.why_aligned), one("coherent", row.coherent, row.why_coherent)];
  const quotes = row.aligned === null || row.coherent === null; // a reason may quote the judge or the answer
  return make("p", quotes ? "scores said" : "scores", both.concat(row.label ? [`label ${row.label}`] : []).join(", "));
};
// What the judge gave each number or label: probabilities of its tokens as it returned them, or shares of its replies.
const distribution = (metric, { n, top }) => {
  const shown = [...top];
  const numbers = shown.every(([token]) => token.trim() !== "" && Number.isFinite(Number(token)));
  if (numbers) shown.sort((a, b) => Number(a[0]) - Number(b[0]));
  const table = make("table", "distribution");
  const others = n > shown.length ? `; the ${shown.length} likeliest of ${n}` : "";
  table.append(make("caption", "", `${metric}: what the judge gave each reply${others}`));
  const lines = make("tbody");
  for (const [token, share] of shown) {
    const line = make("tr"), bar = make("td"), filled = make("meter");
    filled.value = share;
    bar.append(filled);
    line.append(make("th", "said", token), bar, make("td", "", share.toFixed(3)));
    lines.append(line);
  }
  table.append(lines);
  return table;
};
const in_full = (row) => {
  const node = make("article", "full");
  const head = make("h3", "", row.arm.name);
  head.append(" ", own_link(row));
  node.append(head, panel_line("question", `${row.question.text} (${row.question.id}, wording ${row.paraphrase}, sample ${row.sample})`),
    panel_line("system prompt", row.question.system ?? "none"), make("div", "said", row.answer), scores_in_words(row));
  if (row.cut) node.append(make("p", "soft", "cut at the token limit"));
  if (row.more.note) node.append(panel_line("of the judge", make("span", "said", row.more.note)));
  if (row.more.reasoning) {
    const thought = make("details");
    thought.append(make("summary", "", "what it thought before"), make("div", "said", row.more.reasoning));
    node.append(thought);
  }
  const evidence = Object.entries(row.more.evidence ?? {});
  if (evidence.length) node.append(...evidence.map(([metric, told]) => distribution(metric, told)));
  else if (row.aligned !== null || row.label) node.append(make("p", "soft", "This judge left no distribution: it gives one number."));
  return node;
};
const in_short = (row) => {
  const node = make("article", "short");
  node.append(make("h4", "", row.arm.name), make("div", "said", row.answer), scores_in_words(row));
  const under = make("p", "soft");
  under.append(button("this one in full", () => remember_and_show(row)), " ", own_link(row));
  node.append(under);
  return node;
};

const elsewhere = (fields) => {
  const links = side_links(fields);
  if (!links.length) return [];
  const node = make("p", "soft", "All of them: ");
  for (const link of links.slice(0, 12)) {
    const other = make("a", "", link.textContent);
    other.href = side_address(link, fields);
    node.append(other, " ");
  }
  if (links.length > 12) node.append(`and ${links.length - 12} more pages, linked above the answers`);
  return [node];
};
const fill_panel = (title, ...nodes) => {
  const panel = field("one-answer");
  if (!panel.open) {
    opened_from = document.activeElement;
    panel.show(); // not modal: the next point can be clicked while it is open
  }
  field("one-answer-title").textContent = title;
  field("one-answer-body").replaceChildren(...nodes);
  panel.scrollTop = 0;
  panel.focus();
};

const table_with = (fields) => {
  const all = Object.fromEntries(FILTERS.map((name) => [name, fields[name] ?? null]));
  return address_with({ ...all, behind: null, answer: null }, "answers");
};
// Of each other arm the answer to the same wording with the same sample number, else to the same question.
const beside = (row) => {
  const others = store.rows.filter((other) => other.question.id === row.question.id && other.arm !== row.arm && !other.arm.intervention);
  const likeness = (other) => 2 * (other.paraphrase === row.paraphrase) + (other.sample === row.sample);
  const best = new Map();
  for (const other of others) if (!best.has(other.arm) || likeness(other) > likeness(best.get(other.arm))) best.set(other.arm, other);
  const shown = [...best.values()].sort((a, b) => a.arm.index - b.arm.index), grid = make("div", "side-by-side");
  grid.append(...shown.map(in_short));
  const link = make("a", "", "all answers to this question");
  link.href = table_with({ question: row.question.id });
  const where = is_sampled() ? " on this page" : "";
  const counted = `${others.length} answers of other arms to this question${where}; one of each arm is shown. `;
  const words = make("p", "soft", others.length ? counted : "This page has no answers of other arms to this question. ");
  words.append(link);
  return [make("h3", "", "The same question in the other arms"), grid, words, ...elsewhere({ question: row.question.id })];
};
const show_answer = (key) => {
  const row = row_of(key);
  if (row) return fill_panel("One answer", in_full(row), ...beside(row));
  const arm = store.arms.find((one) => key.startsWith(`${escaped(one.name)}/`));
  return fill_panel("One answer", make("p", "absent", `The answer ${key} is not on this page` +
    (is_sampled() ? `, which holds ${store.rows.length} of ${store.n_all}.` : ".")), ...elsewhere({ arm: arm?.name ?? "", answer: key }));
};
const remember_and_show = (row) => {
  remember({ answer: key_of(row) }, address.section || "answers");
  show_answer(key_of(row));
};

const behind_point = (words) => {
  const given = new URLSearchParams(words);
  if (given.has("answer")) return show_answer(given.get("answer"));
  const fields = Object.fromEntries(given), { found, n_unscored, broken } = select_answers(fields), n = n_in_run(fields);
  const list = make("div"), more = button("more", () => add());
  const add = () => {
    const shown = list.childElementCount;
    list.append(...found.slice(shown, shown + ANSWERS_IN_PANEL).map(in_short));
    more.hidden = list.childElementCount >= found.length;
  };
  add();
  const sampled = is_sampled();
  const held = sampled ? ` on this page, which holds ${store.rows.length} of ${store.n_all}` : "";
  const in_all = sampled && n !== null ? `; ${n} in ${store.whole}` : "";
  const counted = make("p", "", broken || `${found.length} answer${found.length === 1 ? "" : "s"}${held}${in_all}${left_out(n_unscored)}.`);
  const link = make("a", "", "in the table of answers");
  link.href = table_with(fields);
  const also = make("p", "soft", "The same ");
  also.append(link);
  const shown = found.length === 1 ? [in_full(found[0]), ...beside(found[0])] : [list, more];
  return fill_panel(in_words(words), counted, also, ...(sampled ? elsewhere(fields) : []), ...shown);
};
const show_behind = async (words, plot) => {
  remember({ behind: words, answer: null }, plot.closest("section[id]")?.id);
  await answers_ready;
  if (store) behind_point(words);
};

const close_panel = () => {
  field("one-answer").close();
  remember({ answer: null, behind: null });
  opened_from?.focus({ preventScroll: true });
};
const show_panel = () => {
  field("close-answer").addEventListener("click", close_panel);
  window.addEventListener("keydown", (event) => { if (event.key === "Escape" && field("one-answer").open) close_panel(); });
};
const recall_panel = () => {
  const { answer, behind } = address.values;
  if (answer) show_answer(answer);
  else if (behind) behind_point(behind);
  else if (field("one-answer").open) field("one-answer").close();
};
