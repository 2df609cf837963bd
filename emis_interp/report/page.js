// The page is put together: what the address names is shown, now and whenever it changes.

// Every heading of a section has its own link.
const link_headings = () => {
  for (const section of document.querySelectorAll("section[id]")) {
    const head = section.querySelector("h2");
    if (!head) continue;
    const link = make("a", "here", "#");
    link.href = `#${section.id}`;
    link.setAttribute("aria-label", `link to ${head.textContent}`);
    head.append(" ", link);
  }
};

let recall_filter = null;
const start_answers = async () => {
  if (!field("answer-data")) return;
  try {
    await load_answers();
  } catch (error) {
    field("found").textContent = `${error.message} The answers are in samples/ and interventions/ of the run folder.`;
    return;
  }
  show_panel();
  recall_filter = show_answers();
  recall_panel();
};
const hiding = field("hide-text");
const recall_hiding = () => {
  if (!hiding) return;
  hiding.checked = address.values.hide === "true";
  document.body.classList.toggle("hidden-text", hiding.checked);
};
hiding?.addEventListener("change", () => {
  remember({ hide: hiding.checked });
  recall_hiding();
  recall_filter?.(); // links to side pages hide their texts too
});

const came_with_state = read_address();
link_headings();
recall_hiding();
show_figures();
Figures.begin(load_library);
recall_choices();
if (came_with_state) go_to_section(); // before the first figure is near
const answers_ready = start_answers();
if (came_with_state) answers_ready.then(go_to_section); // the table has its height now
window.addEventListener("hashchange", () => {
  const whole = read_address();
  if (!whole) return remember({});
  recall_hiding();
  recall_choices();
  recall_filter?.();
  if (recall_filter) recall_panel();
  return go_to_section();
});
performance.mark("ready");
answers_ready.then(() => performance.mark("answers-ready"));
