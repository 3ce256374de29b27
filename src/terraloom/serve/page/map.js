// The map: layers of this Earth, the state in the address, and what is always on screen.
import { boxTool } from "./box.js";
import { imagineTool } from "./imagine.js";
import { searchTool } from "./search.js";
import { swipeTool } from "./swipe.js";

export const $ = (id) => document.getElementById(id);
const EQUATOR_GSD = 156543.03392804097;
export const FINEST = 18;
export const BASE = 6; // zoom of the base map

// ------------------------------------------------------------ small helpers that the tools share

export const gsdAt = (lat, zoom) => EQUATOR_GSD * Math.cos((lat * Math.PI) / 180) / 2 ** zoom;

export function metres(gsd) {
  if (gsd >= 1000) return `${(gsd / 1000).toFixed(1)} km`;
  return gsd >= 10 ? `${gsd.toFixed(0)} m` : `${gsd.toFixed(1)} m`;
}

/** What a failed answer says, in words. */
export async function why(answer) {
  const said = await answer.json().then((body) => body.detail, () => null);
  if (typeof said === "string") return said;
  return answer.status === 503 ? "the server is busy; try again in a moment" : `the server answered ${answer.status}`;
}

export function say(element, text, kind = "") {
  element.textContent = text;
  element.className = `state ${kind}`;
}

let toastTimer;
export function toast(text, again) {
  const [words, button] = $("toast").children;
  words.textContent = text;
  button.hidden = !again;
  button.onclick = () => { $("toast").hidden = true; again(); };
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  if (!again) toastTimer = setTimeout(() => { $("toast").hidden = true; }, 5000);
}

// ------------------------------------------------------------ state and address

const asked = new URLSearchParams(location.hash.slice(1));
const given = (name, fallback) => (asked.get(name) !== null && Number.isFinite(Number(asked.get(name))) ? Number(asked.get(name)) : fallback);

export const state = {
  world: asked.get("world"),
  seed: Math.max(0, Math.trunc(given("seed", 0))),
  swipe: asked.get("with"), // null, "base" or a seed
  spec: null,
};

export const map = L.map("map", {
  zoomControl: false, attributionControl: false, minZoom: 2, maxZoom: FINEST, worldCopyJump: true,
  maxBounds: [[-85.06, -Infinity], [85.06, Infinity]], maxBoundsViscosity: 1,
});
map.setView([given("lat", 24), given("lon", 14)], Math.min(FINEST, Math.max(2, given("z", 3))));
L.control.zoom({ position: "bottomright" }).addTo(map);
L.control.scale({ position: "bottomright", imperial: false, maxWidth: 140 }).addTo(map);

export function remember() {
  const { lat, lng } = map.getCenter().wrap();
  const parts = new URLSearchParams({ z: map.getZoom(), lat: lat.toFixed(5), lon: lng.toFixed(5), seed: state.seed });
  if (state.world) parts.set("world", state.world);
  if (state.swipe !== null) parts.set("with", state.swipe);
  history.replaceState(null, "", `#${parts}`);
}

export function query(seed = state.seed) {
  const parts = new URLSearchParams({ seed });
  if (state.world) parts.set("world", state.world);
  return parts;
}

// ------------------------------------------------------------ layers

const loading = new Set();
function busy(layer, is) {
  if (is) loading.add(layer);
  else loading.delete(layer);
  $("busy").hidden = loading.size === 0;
}

/** Tiles of a seed; `baseOnly` stretches the base map instead of drawing finer. */
export function layerOf(seed, { pane = "tilePane", baseOnly = false } = {}) {
  const layer = L.tileLayer(`tiles/WebMercatorQuad/{z}/{x}/{y}.jpg?${query(seed)}`, {
    pane, minZoom: 0, maxZoom: FINEST, maxNativeZoom: baseOnly ? BASE : FINEST, keepBuffer: 1, updateWhenZooming: false,
  });
  layer.on("loading", () => busy(layer, true)).on("load remove", () => busy(layer, false));
  layer.on("tileerror", () => toast("Some of the map could not be drawn; the server may be busy.", () => layer.redraw()));
  return layer;
}

let main = layerOf(state.seed).addTo(map);

export function setSeed(seed) {
  state.seed = seed;
  $("seed").value = seed;
  map.removeLayer(main);
  main = layerOf(seed, { pane: swipe.on ? "left" : "tilePane" }).addTo(map);
  swipe.refresh();
  remember();
}

export function rebuildMain(pane) {
  map.removeLayer(main);
  main = layerOf(state.seed, { pane }).addTo(map);
}

/** A seed that this server allows, other than the present one. */
export function someSeed() {
  const ranges = state.spec ? state.spec.seeds : [[0, 9999]];
  const [first, last] = ranges[Math.floor(Math.random() * ranges.length)];
  return first + Math.floor(Math.random() * (last - first + 1));
}

// ------------------------------------------------------------ one tool at a time

const tools = { compare: swipeTool(), box: boxTool(), imagine: imagineTool() };
const swipe = tools.compare;
let open = null;

export function openTool(name) {
  if (open) {
    tools[open].stop();
    $(open).setAttribute("aria-pressed", "false");
    $(`card-${open}`).hidden = true;
  }
  open = name === open ? null : name;
  if (open) {
    $(open).setAttribute("aria-pressed", "true");
    $(`card-${open}`).hidden = false;
    tools[open].start();
  }
}
for (const name of Object.keys(tools)) $(name).onclick = () => openTool(name);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && open && !$("credits").open) { $(open).focus(); openTool(open); }
  if (event.key === "/" && !/INPUT|TEXTAREA|SELECT/.test(document.activeElement.tagName)) { event.preventDefault(); $("query").focus(); }
});

// ------------------------------------------------------------ what is always there

function showGsd() {
  $("gsd").textContent = `${metres(gsdAt(map.getCenter().lat, map.getZoom()))} per pixel`;
}
map.on("move zoomend", showGsd).on("moveend", remember);
showGsd();
$("seed").value = state.seed;
$("seed").onchange = () => {
  const seed = Math.trunc(Number($("seed").value));
  if (Number.isFinite(seed) && seed >= 0) setSeed(seed);
};
$("another").onclick = () => { setSeed(someSeed()); toast(`Earth ${state.seed}: the same coasts, other details.`); };
$("link").onclick = async () => {
  remember();
  try { await navigator.clipboard.writeText(location.href); toast("The link to this view is copied."); }
  catch { toast("The link to this view is in the address bar."); }
};
$("about").onclick = () => $("credits").showModal();
searchTool();

async function readSpec() {
  try {
    const answer = await fetch(`spec?${query()}`);
    if (!answer.ok) { toast(`This Earth cannot be shown: ${await why(answer)}`); return; }
    state.spec = await answer.json();
    $("credits-text").textContent = state.spec.credits;
    tools.imagine.know(state.spec.text_model);
  } catch { toast("The server cannot be reached."); }
}
await readSpec();
remember();
if (state.swipe !== null) openTool("compare");
window.terraloom = { map, state }; // for the curious, and for tests
