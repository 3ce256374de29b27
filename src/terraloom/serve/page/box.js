// Download: a box drawn on the map, as a Cloud-Optimized GeoTIFF.
import { $, FINEST, gsdAt, map, metres, query, say, state, why } from "./map.js";

export function boxTool() {
  let box = null; // L.latLngBounds
  let shape = null;
  let from = null;
  let call = null;

  function start() {
    map.dragging.disable();
    $("map").classList.add("aiming");
    const surface = map.getContainer();
    surface.addEventListener("pointerdown", down);
    surface.addEventListener("pointermove", move);
    surface.addEventListener("pointerup", up);
    $("box-hint").textContent = "Drag a box on the map.";
    offer();
  }

  function stop() {
    const surface = map.getContainer();
    surface.removeEventListener("pointerdown", down);
    surface.removeEventListener("pointermove", move);
    surface.removeEventListener("pointerup", up);
    map.dragging.enable();
    $("map").classList.remove("aiming");
    if (shape) shape.remove();
    box = shape = from = null;
    call?.abort();
  }

  const place = (event) => map.mouseEventToLatLng(event);
  function down(event) {
    if (event.button !== 0 || event.target.closest(".leaflet-control")) return;
    from = place(event);
    map.getContainer().setPointerCapture(event.pointerId);
  }
  function move(event) { if (from) draw(L.latLngBounds(from, place(event))); }
  function up(event) {
    if (!from) return;
    const bounds = L.latLngBounds(from, place(event));
    from = null;
    const size = map.latLngToContainerPoint(bounds.getSouthEast()).subtract(map.latLngToContainerPoint(bounds.getNorthWest()));
    if (size.x > 4 && size.y > 4) draw(bounds);
  }

  function draw(bounds) {
    box = bounds;
    if (shape) shape.setBounds(bounds);
    else shape = L.rectangle(bounds, { color: "#fff", weight: 2, dashArray: "6 5", fillOpacity: 0.08, interactive: false }).addTo(map);
    offer();
  }

  /** The levels as choices, the present one chosen; those that are too large are not offered. */
  function offer() {
    const bounds = box ?? map.getBounds();
    const lat = bounds.getSouth() <= 0 && bounds.getNorth() >= 0 ? 0 : Math.min(Math.abs(bounds.getSouth()), Math.abs(bounds.getNorth()));
    const before = $("box-gsd").value;
    const choices = [];
    for (let zoom = 4; zoom <= FINEST; zoom += 1) {
      if (pixels(zoom) > (state.spec?.limits.pixels ?? 2 ** 24)) break;
      choices.push(new Option(metres(gsdAt(lat, zoom)), String(zoom)));
    }
    $("box-gsd").replaceChildren(...choices);
    const wanted = box && before ? Number(before) : map.getZoom();
    const last = choices.length ? Number(choices.at(-1).value) : 0;
    $("box-gsd").value = String(Math.min(wanted, last));
    tell();
  }

  function pixels(zoom) {
    const [a, b] = [map.project((box ?? map.getBounds()).getNorthWest(), zoom), map.project((box ?? map.getBounds()).getSouthEast(), zoom)];
    return Math.abs((b.x - a.x) * (b.y - a.y));
  }

  function tell() {
    const ready = box && $("box-gsd").value;
    $("box-get").disabled = !ready || call !== null;
    if (!box) { $("box-size").textContent = ""; return; }
    const zoom = Number($("box-gsd").value);
    const [a, b] = [map.project(box.getNorthWest(), zoom), map.project(box.getSouthEast(), zoom)];
    $("box-size").textContent = ready
      ? `${Math.round(b.x - a.x)} × ${Math.round(b.y - a.y)} pixels, ${(pixels(zoom) / 1e6).toFixed(1)} megapixels`
      : "This box is too large; draw a smaller one.";
  }

  const clamp = (lat) => Math.min(85.05, Math.max(-85.05, lat));
  const turn = (lon) => ((lon + 180) % 360 + 360) % 360 - 180;

  async function get() {
    const zoom = Number($("box-gsd").value);
    const [south, north] = [clamp(box.getSouth()), clamp(box.getNorth())];
    const wide = box.getEast() - box.getWest() >= 360;
    const [west, east] = wide ? [-180, 180] : [turn(box.getWest()), turn(box.getEast())];
    const nearest = south <= 0 && north >= 0 ? 0 : Math.min(Math.abs(south), Math.abs(north));
    const ask = query();
    ask.set("bbox", [west, south, east, north].map((n) => n.toFixed(6)).join(","));
    ask.set("gsd", String(gsdAt(nearest, zoom)));
    call = new AbortController();
    $("box-stop").hidden = false;
    tell();
    say($("box-state"), "Drawing; a large box takes a minute.", "working");
    try {
      const answer = await fetch(`cog.tif?${ask}`, { signal: call.signal });
      if (!answer.ok) { say($("box-state"), `Not drawn: ${await why(answer)}`, "bad"); return; }
      const file = await answer.blob();
      const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition"))?.[1] ?? "synthetic.tif";
      const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
      say($("box-state"), `${name}, ${(file.size / 1e6).toFixed(1)} MB: it opens in QGIS.`);
    } catch (error) {
      if (error.name === "AbortError") say($("box-state"), "Stopped.");
      else say($("box-state"), "The server cannot be reached.", "bad");
    } finally {
      call = null;
      $("box-stop").hidden = true;
      tell();
    }
  }

  $("box-view").onclick = () => draw(map.getBounds().pad(-0.1));
  $("box-gsd").onchange = tell;
  $("box-get").onclick = get;
  $("box-stop").onclick = () => call?.abort();
  return { start, stop };
}
