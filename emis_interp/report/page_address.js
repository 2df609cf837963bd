// What every part of the page uses: nodes made from text, packed data, and the address, which holds what the reader sees.

const field = (id) => document.getElementById(id);
const read = (id) => JSON.parse(field(id).textContent);
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const button = (text, act) => {
  const node = make("button", "", text);
  node.type = "button";
  node.addEventListener("click", act);
  return node;
};

// Library and answers are gzip in base64, a third of their length.
const CANNOT_UNPACK = "This browser cannot unpack what belongs here (it has no DecompressionStream). " +
  "Chrome and Edge from 92, Safari from 16.4 and Firefox from 113 can.";
const unpack = async (id) => {
  if (typeof DecompressionStream === "undefined") throw new Error(CANNOT_UNPACK);
  const binary = atob(field(id).textContent);
  const bytes = new Uint8Array(binary.length);
  for (let place = 0; place < binary.length; place += 1) bytes[place] = binary.charCodeAt(place);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};

// #SECTION&name=value...: the filter of the answers (FILTERS), `answer` (the open one), `behind` (the point whose answers are open),
// `hide` (texts are hidden), and the choice of each figure by its name (`fig-rates`). A bare #SECTION goes there and keeps the rest.
const FILTERS = ["arm", "question", "kind", "label", "text", "regex", "order", "min", "max", "cmin", "cmax"];
const address = { section: "", values: {} };
const read_address = () => {
  const [section, ...words] = location.hash.slice(1).split("&");
  const whole = words.length > 0;
  address.section = section.includes("=") ? "" : section;
  if (whole) address.values = Object.fromEntries(new URLSearchParams(words.join("&")));
  return whole;
};
const address_with = (changes, section = address.section) => {
  const kept = Object.entries({ ...address.values, ...changes }).filter(([, value]) => value !== "" && value !== null && value !== false);
  const words = new URLSearchParams(kept.map(([name, value]) => [name, String(value)])).toString();
  return words ? `#${section}&${words}` : section && `#${section}`;
};
const remember = (changes, section = address.section) => {
  history.replaceState(null, "", address_with(changes, section) || location.pathname + location.search);
  read_address();
  if (!location.hash.includes("&")) address.values = {};
};
const go_to_section = () => {
  let name = address.section;
  try {
    name = decodeURIComponent(name);
  } catch (error) {
    if (!(error instanceof URIError)) throw error; // a lone % in the address stands for itself
  }
  field(name)?.scrollIntoView({ behavior: "instant" });
};
