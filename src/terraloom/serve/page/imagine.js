// Generate: words and numbers to an image that lies on the map where one clicked.
import { $, map, say, why } from "./map.js";

export function imagineTool() {
  let pin = null;
  let overlay = null;
  let made = null; // what was asked for
  let call = null;
  let missing = null; // why there is no text model

  function know(model) {
    missing = model === true ? null : model;
    $("imagine-form").hidden = missing !== null;
    $("imagine-place").hidden = missing !== null;
    if (missing) say($("imagine-state"), `${missing[0].toUpperCase()}${missing.slice(1)}`, "bad");
  }

  function start() {
    if (missing) return;
    $("map").classList.add("aiming");
    map.on("click", choose);
    if (!pin) put(map.getCenter());
    $("prompt").focus();
  }

  function stop() {
    $("map").classList.remove("aiming");
    map.off("click", choose);
    pin?.remove();
    pin = null;
    call?.abort();
  }

  const choose = (event) => put(event.latlng);
  function put(place) {
    if (!pin) pin = L.marker(place, { icon: L.divIcon({ className: "pin", iconSize: [16, 16] }), keyboard: false }).addTo(map);
    pin.setLatLng(place);
    const { lat, lng } = place.wrap();
    $("imagine-place").textContent = `At ${lat.toFixed(4)}, ${lng.toFixed(4)}. Click the map to move it.`;
  }

  function wish() {
    const { lat, lng } = pin.getLatLng().wrap();
    return {
      prompt: $("prompt").value.trim(), lon: Number(lng.toFixed(6)), lat: Number(lat.toFixed(6)),
      gsd: Number($("imagine-gsd").value), cloud_cover: Number($("imagine-clouds").value),
      date: $("imagine-date").value || null, seed: Math.trunc(Number($("imagine-seed").value)) || 0,
    };
  }

  const ask = (body, format) => fetch(`generate?format=${format}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal: call?.signal,
  });

  async function go(event) {
    event.preventDefault();
    if (call) return;
    call = new AbortController();
    $("imagine-go").disabled = true;
    $("imagine-stop").hidden = false;
    say($("imagine-state"), "Generating; half a minute on a small computer.", "working");
    try {
      made = wish();
      const answer = await ask(made, "png");
      if (!answer.ok) { say($("imagine-state"), `Not generated: ${await why(answer)}`, "bad"); return; }
      const [west, south, east, north] = answer.headers.get("Content-Bbox").split(",").map(Number);
      lay(URL.createObjectURL(await answer.blob()), [[south, west], [north, east]]);
      say($("imagine-state"), "Done. It is as synthetic as the map around it.");
    } catch (error) {
      if (error.name === "AbortError") say($("imagine-state"), "Stopped.");
      else say($("imagine-state"), "The server cannot be reached.", "bad");
    } finally {
      call = null;
      $("imagine-go").disabled = false;
      $("imagine-stop").hidden = true;
    }
  }

  function lay(address, bounds) {
    clear();
    overlay = L.imageOverlay(address, bounds, { alt: made.prompt }).addTo(map);
    map.flyToBounds(bounds, { padding: [120, 120], maxZoom: 17, duration: 0.6 });
    $("imagine-png").href = address;
    $("imagine-save").hidden = false;
  }

  function clear() {
    if (overlay) { URL.revokeObjectURL($("imagine-png").href); overlay.remove(); }
    overlay = null;
    $("imagine-save").hidden = true;
  }

  async function save() {
    say($("imagine-state"), "Writing the GeoTIFF.", "working");
    const answer = await ask(made, "tif").catch(() => null);
    if (!answer?.ok) { say($("imagine-state"), answer ? `Not written: ${await why(answer)}` : "The server cannot be reached.", "bad"); return; }
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(await answer.blob()), download: "synthetic.tif" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    say($("imagine-state"), "Saved as synthetic.tif.");
  }

  $("imagine-form").onsubmit = go;
  $("imagine-stop").onclick = () => call?.abort();
  $("imagine-clear").onclick = () => { clear(); say($("imagine-state"), ""); };
  $("imagine-tif").onclick = save;
  return { start, stop, know };
}
