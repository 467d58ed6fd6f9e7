// The page: shows one item after the other, measures how long it is looked at, and sends what is decided. All text goes in as text.
"use strict";

const REASONS = [ // by key 1 to 5; about which kinds of items they can be
  ["class", "wrong class", ["image", "mask"]],
  ["boundary", "mask does not fit", ["image", "mask"]],
  ["missing", "something is missing", ["image", "missing"]],
  ["extra", "marks what is none of these", ["image", "mask"]],
  ["duplicate", "marked twice", ["image", "mask", "missing"]],
];
const WAIT = 20000; // milliseconds for an answer of the server
const SETTLE = 150; // milliseconds after the paint in which nothing is decided: the second press of a key is meant for the item before
const KEPT = 6; // items whose pictures are kept
const token = location.pathname.split("/")[1];
const page = sessionStorage.getItem("page") || random();
sessionStorage.setItem("page", page);

const at = (id) => document.getElementById(id);
const stage = at("stage");
const pictures = new Map(); // by item: a promise of its bitmaps
let current = null; // {item, start, hidden, since, broken}; `start` is null until it is painted
let unsaved = null; // a decision that the server has not confirmed
let retry = 0;
let showing = 0; // counts what is to be shown, so that what comes late is left

function random() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0")).join("");
}

// ---- the server

class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function ask(path, content) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), WAIT);
  const options = {signal: stop.signal, headers: {"X-Review-Token": token}, cache: "no-store", credentials: "omit", redirect: "error"};
  if (content) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify({page, ...content});
  }
  try {
    const answer = await fetch(path, options);
    if (!answer.ok) {
      let words = `the server says ${answer.status}`;
      try {
        words = (await answer.json()).error || words;
      } catch {} // eslint-disable-line no-empty
      throw new Refused(words, answer.status);
    }
    return content ? await answer.json() : await answer.blob();
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new Refused("the server does not answer; does the program still run?", 0);
  } finally {
    clearTimeout(timer);
  }
}

// ---- pictures

function load(item) {
  if (!pictures.has(item.item)) {
    const all = item.pictures.map(async (_, k) => createImageBitmap(await ask(`/api/picture/${item.item}/${k}`)));
    const one = Promise.all(all);
    one.catch(() => pictures.delete(item.item)); // to be asked for again
    pictures.set(item.item, one);
    for (const key of pictures.keys()) {
      if (pictures.size <= KEPT) break;
      if (key === item.item || (current && key === current.item.item)) continue;
      pictures.get(key).then((some) => some.forEach((bitmap) => bitmap.close()), () => {});
      pictures.delete(key);
    }
  }
  return pictures.get(item.item);
}

function figures(item, bitmaps) {
  const made = [];
  item.pictures.forEach((picture, k) => {
    const bitmap = bitmaps[k];
    picture.parts.forEach(([from, to], n) => {
      const scale = bitmap.width / picture.whole; // of a large picture, which was made smaller
      const left = Math.ceil(from * scale - 1e-6), right = Math.floor(to * scale + 1e-6);
      const canvas = document.createElement("canvas");
      canvas.width = Math.max(1, right - left);
      canvas.height = bitmap.height;
      canvas.getContext("2d").drawImage(bitmap, left, 0, canvas.width, bitmap.height, 0, 0, canvas.width, bitmap.height);
      canvas.setAttribute("role", "img");
      const marked = item.declared.length === 1 ? "1 mark" : `${item.declared.length} marks`;
      canvas.setAttribute("aria-label", `${picture.captions[n]} (${marked})`);
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      caption.textContent = picture.captions[n];
      figure.append(canvas, caption);
      made.push(figure);
    });
  });
  return made;
}

// ---- what is shown

function bdi(text) {
  const element = document.createElement("bdi");
  element.textContent = text;
  return element;
}

function describe(item) {
  at("part").textContent = item.part ? `Mask ${item.part[0]} of ${item.part[1]}` : item.kind === "missing" ? "The image as a whole" : "";
  const [before, named, after] = item.question;
  const question = [before];
  if (named) {
    const element = bdi(named);
    element.className = "named";
    element.style.setProperty("--colour", item.declared[0].colour);
    question.push(element);
  }
  at("question").replaceChildren(...question, after);
  at("declared-box").hidden = item.kind === "mask";
  at("declared").replaceChildren(...item.declared.map(({name, colour}) => {
    const line = document.createElement("li"), swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = colour;
    line.append(swatch, bdi(name));
    return line;
  }));
  at("classes-box").hidden = !item.classes.length;
  at("classes").replaceChildren(...item.classes.flatMap((name, k) => (k ? [", ", bdi(name)] : [bdi(name)])));
  at("reasons").replaceChildren(...REASONS.flatMap(([reason, words, kinds], k) => {
    if (!kinds.includes(item.kind)) return [];
    const button = document.createElement("button"), key = document.createElement("kbd");
    key.textContent = k + 1;
    button.type = "button";
    button.append(words, key);
    button.addEventListener("click", () => decide("no", reason));
    return [button];
  }));
  at("announce").textContent = `${at("part").textContent} ${at("question").textContent} ${item.declared.map((one) => one.name).join(", ")}`;
}

function minutes(seconds) {
  if (seconds === null) return "";
  if (seconds < 60) return "less than a minute left";
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min left`;
  return `about ${(seconds / 3600).toFixed(1)} h left`;
}

function showProgress(state) {
  at("count").textContent = state.item ? `${state.done + 1} of ${Math.max(state.total, state.done + 1)}` : `${state.done} done`;
  at("left").textContent = state.item ? minutes(state.seconds_left) : "";
  at("who").textContent = state.reviewer;
  const share = state.total ? state.done / state.total : 1;
  at("bar").style.width = `${100 * share}%`;
  at("progress").setAttribute("aria-valuemax", state.total);
  at("progress").setAttribute("aria-valuenow", state.done);
}

function enable() {
  const ready = Boolean(current) && !unsaved;
  const painted = ready && current.start !== null && performance.now() - current.start >= SETTLE;
  for (const id of ["yes", "no"]) at(id).disabled = !painted;
  for (const button of at("reasons").children) button.disabled = !painted;
  at("skip").disabled = !(painted || (ready && current.broken));
  at("undo").disabled = at("end-undo").disabled = Boolean(unsaved);
  at("zoom").disabled = !painted;
}

async function show(state) {
  const number = ++showing;
  showProgress(state);
  if (!state.item) {
    current = null;
    document.querySelector("main").hidden = true;
    at("end").hidden = false;
    at("end-title").textContent = "Nothing more to decide";
    at("end-text").textContent = state.skipped
      ? `You skipped ${state.skipped}; they stay open and come again when the program is started anew. Stop it with Ctrl-C; it says what comes next.`
      : "Stop the program with Ctrl-C; it says what comes next.";
    at("end-title").focus();
    enable();
    return;
  }
  document.querySelector("main").hidden = false;
  at("end").hidden = true;
  const item = state.item;
  current = {item, start: null, hidden: 0, since: null, broken: false};
  enable();
  let bitmaps;
  try {
    bitmaps = await load(item);
  } catch (error) {
    if (number !== showing) return;
    zoom(false);
    describe(item);
    const words = document.createElement("p");
    words.textContent = `The picture cannot be shown: ${error.message}`;
    stage.replaceChildren(words);
    current.broken = true;
    enable();
    if (!error.status) tell(error.message, () => show(state), true);
    return;
  }
  if (number !== showing) return;
  quiet();
  zoom(false);
  stage.replaceChildren(...figures(item, bitmaps));
  describe(item);
  requestAnimationFrame(() => requestAnimationFrame(() => { // the second comes when the first has been painted; none while hidden
    if (number !== showing) return;
    current.start = performance.now();
    current.since = document.hidden ? current.start : null;
    setTimeout(() => number === showing && enable(), SETTLE + 1);
    lookAhead(item);
  }));
}

async function lookAhead(item) {
  try {
    for (const coming of (await ask("/api/ahead", {item: item.item})).items) await load(coming);
  } catch {} // eslint-disable-line no-empty
}

// ---- the clock stands while the page is hidden

document.addEventListener("visibilitychange", () => {
  if (!current || current.start === null) return;
  const now = performance.now();
  if (document.hidden) current.since ??= now;
  else if (current.since !== null) {
    current.hidden += now - current.since;
    current.since = null;
  }
});

// ---- decisions

function decide(decision, reason = "") {
  if (!current || unsaved || at("help").open) return;
  const now = performance.now(), start = current.start ?? now;
  if (current.start === null ? !(decision === "skip" && current.broken) : now - start < SETTLE) return;
  const hidden = current.hidden + (current.since === null ? 0 : now - current.since);
  const content = {
    id: random(), item: current.item.item, decision, reason, seconds: Math.max(0, now - start - hidden) / 1000, hidden: hidden / 1000,
  };
  unsaved = {path: "/api/answer", content, at: now};
  save();
}

function undo() {
  if (unsaved || at("help").open) return;
  unsaved = {path: "/api/undo", content: {id: random()}, at: performance.now()};
  save();
}

async function save() {
  enable();
  const {path, content} = unsaved;
  if (path === "/api/answer") content.ago = (performance.now() - unsaved.at) / 1000;
  let state;
  try {
    state = await ask(path, content);
  } catch (error) {
    if (error.status >= 400 && error.status < 500) { // it would be refused again: the program was started anew, or it is no decision
      unsaved = null;
      tell(path === "/api/undo" ? error.message : `Not saved: ${error.message}. Decide on this one again.`, start);
      return;
    }
    tell(`Not saved yet: ${error.message}. Your decision is kept, and tried again.`, save, true);
    return;
  }
  unsaved = null;
  quiet();
  if (path === "/api/undo" && !state.undone) at("announce").textContent = "There is nothing to undo";
  await show(state);
}

async function start() {
  try {
    const state = await ask("/api/start", {});
    quiet();
    await show(state);
  } catch (error) {
    tell(error.message, start, true);
  }
}

let waiting = null;

function tell(words, again, soon = false) {
  at("notice-text").textContent = words;
  at("notice").hidden = false;
  clearTimeout(waiting);
  const run = () => {
    clearTimeout(waiting);
    at("notice").hidden = true;
    again();
  };
  at("notice-button").onclick = run;
  if (soon) waiting = setTimeout(run, Math.min(30000, 1000 * 2 ** retry++));
}

function quiet() {
  retry = 0;
  clearTimeout(waiting);
  at("notice").hidden = true;
}

addEventListener("beforeunload", (event) => {
  if (unsaved) event.preventDefault();
});

// ---- zoom

function zoom(on, x = 0.5, y = 0.5, target = null) {
  const canvases = [...stage.querySelectorAll("canvas")];
  if (on && canvases.length) {
    const scales = canvases.map((c) => Math.min(c.clientWidth / c.width, c.clientHeight / c.height));
    const scale = Math.max(2 * Math.max(...scales), 1);
    stage.classList.add("zoomed");
    canvases.forEach((c) => {
      c.style.width = `${c.width * scale}px`;
      c.style.height = `${c.height * scale}px`;
    });
    const chosen = target || canvases[canvases.length - 1], frame = stage.getBoundingClientRect(), box = chosen.getBoundingClientRect();
    stage.scrollTo(box.left - frame.left + stage.scrollLeft + x * box.width - frame.width / 2, box.top - frame.top + stage.scrollTop + y * box.height - frame.height / 2);
  } else {
    stage.classList.remove("zoomed");
    canvases.forEach((c) => {
      c.style.width = c.style.height = "";
    });
  }
  at("zoom").setAttribute("aria-pressed", String(stage.classList.contains("zoomed")));
}

stage.addEventListener("click", (event) => {
  if (!current || current.start === null) return;
  if (stage.classList.contains("zoomed")) return zoom(false);
  const canvas = event.target.closest("canvas");
  if (!canvas) return;
  // within its box the picture keeps its shape, so there may be room beside it
  const box = canvas.getBoundingClientRect(), scale = Math.min(box.width / canvas.width, box.height / canvas.height);
  const inside = (place, middle, size) => Math.min(1, Math.max(0, (place - middle) / (size * scale) + 0.5));
  zoom(true, inside(event.clientX, box.left + box.width / 2, canvas.width), inside(event.clientY, box.top + box.height / 2, canvas.height), canvas);
});

// ---- keys and buttons

const toggle = () => current && current.start !== null && zoom(!stage.classList.contains("zoomed"));
const KEYS = {
  y: () => decide("yes"), arrowright: () => decide("yes"), n: () => decide("no"), arrowleft: () => decide("no"), u: undo,
  s: () => decide("skip"), z: toggle, "?": () => at("help").open ? at("help").close() : at("help").showModal(),
  escape: () => zoom(false),
};
REASONS.forEach(([reason, , kinds], k) => {
  KEYS[k + 1] = () => current && kinds.includes(current.item.kind) && decide("no", reason);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
  const key = event.key.toLowerCase();
  if (at("help").open && key !== "?") return;
  if (Object.hasOwn(KEYS, key)) {
    if (key !== "escape") event.preventDefault();
    KEYS[key]();
  }
});
at("yes").addEventListener("click", () => decide("yes"));
at("no").addEventListener("click", () => decide("no"));
at("skip").addEventListener("click", () => decide("skip"));
at("undo").addEventListener("click", undo);
at("end-undo").addEventListener("click", undo);
at("zoom").addEventListener("click", toggle);
at("help-open").addEventListener("click", () => at("help").showModal());
start();
