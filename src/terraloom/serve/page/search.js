// Place search: names of Natural Earth, or latitude and longitude.
import { $, map, toast } from "./map.js";

const MOST = 8;
const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
let places = null; // [name, country, lon, lat, population], largest first
let found = [];
let chosen = -1;

async function load() {
  if (places) return;
  try {
    const answer = await fetch("places.json");
    places = (await answer.json()).map((row) => [...row, plain(row[0])]);
  } catch { toast("The list of places cannot be reached."); }
}

function coordinates(text) {
  const match = text.match(/^\s*(-?\d+(?:\.\d+)?)\s*[,; ]\s*(-?\d+(?:\.\d+)?)\s*$/);
  if (!match) return null;
  const [lat, lon] = [Number(match[1]), Number(match[2])];
  return Math.abs(lat) <= 85 && Math.abs(lon) <= 180 ? [`${lat}, ${lon}`, "coordinates", lon, lat, 0] : null;
}

function look(text) {
  const spot = coordinates(text);
  if (spot) return [spot];
  const wanted = plain(text.trim());
  if (!wanted || !places) return [];
  const begins = [], holds = [];
  for (const place of places) {
    const at = place[5].indexOf(wanted);
    if (at === 0) begins.push(place);
    else if (at > 0) holds.push(place);
    if (begins.length >= MOST) break;
  }
  return [...begins, ...holds].slice(0, MOST);
}

function show() {
  const list = $("found");
  list.replaceChildren(...found.map((place, i) => {
    const row = document.createElement("li");
    row.id = `place-${i}`;
    row.role = "option";
    row.setAttribute("aria-selected", String(i === chosen));
    const country = document.createElement("span");
    country.textContent = place[1];
    row.append(place[0], country);
    row.onpointerdown = (event) => { event.preventDefault(); go(place); };
    return row;
  }));
  const nothing = !found.length && $("query").value.trim() && places;
  if (nothing) {
    const row = document.createElement("li");
    row.className = "none";
    row.textContent = "No place of that name.";
    list.append(row);
  }
  list.hidden = !found.length && !nothing;
  $("query").setAttribute("aria-expanded", String(!list.hidden));
  $("query").setAttribute("aria-activedescendant", chosen >= 0 ? `place-${chosen}` : "");
}

function close() { found = []; chosen = -1; $("found").hidden = true; $("query").setAttribute("aria-expanded", "false"); }

function go(place) {
  $("query").value = place[0];
  close();
  map.setView([place[3], place[2]], Math.max(map.getZoom(), 12));
  $("map").focus({ preventScroll: true });
}

export function searchTool() {
  $("query").onfocus = load;
  $("query").oninput = async () => { await load(); found = look($("query").value); chosen = found.length ? 0 : -1; show(); };
  $("query").onblur = close;
  $("query").onkeydown = (event) => {
    if (event.key === "Escape") { close(); event.stopPropagation(); }
    if (!found.length) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) { event.preventDefault(); chosen = (chosen + step + found.length) % found.length; show(); }
  };
  $("search").onsubmit = (event) => { event.preventDefault(); if (found[chosen]) go(found[chosen]); };
}
