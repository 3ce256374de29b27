// Compare: this Earth left of a line, the base map or another Earth right of it.
import { $, layerOf, map, rebuildMain, remember, someSeed, state } from "./map.js";

export function swipeTool() {
  let at = 0.5; // of the width
  let right = null;
  let divider = null;
  let sides = [];
  const tool = { on: false, start, stop, refresh };

  function start() {
    tool.on = true;
    for (const name of ["left", "right"]) if (!map.getPane(name)) map.createPane(name).style.zIndex = 201;
    if (state.swipe === null) state.swipe = "base";
    const other = state.swipe === "base" ? null : Number(state.swipe);
    if ($("other-seed").value === "") $("other-seed").value = other ?? someSeed();
    document.querySelector(`[name=with][value=${other === null ? "base" : "seed"}]`).checked = true;
    rebuildMain("left");
    divider = document.createElement("button");
    divider.id = "divider";
    divider.role = "slider";
    divider.setAttribute("aria-label", "Line between the two maps");
    divider.setAttribute("aria-valuemin", "0");
    divider.setAttribute("aria-valuemax", "100");
    divider.onpointerdown = drag;
    divider.onkeydown = step;
    sides = [document.createElement("div"), document.createElement("div")];
    for (const side of sides) side.className = "side";
    $("map").after(divider, ...sides);
    map.on("move zoom viewreset resize", clip);
    refresh();
  }

  function stop() {
    tool.on = false;
    state.swipe = null;
    map.off("move zoom viewreset resize", clip);
    if (right) map.removeLayer(right);
    right = null;
    divider.remove();
    sides.forEach((side) => side.remove());
    rebuildMain("tilePane");
    remember();
  }

  function refresh() {
    if (!tool.on) return;
    if (right) map.removeLayer(right);
    const seed = state.swipe === "base" ? state.seed : Number(state.swipe);
    right = layerOf(seed, { pane: "right", baseOnly: state.swipe === "base" }).addTo(map);
    sides[0].textContent = `Earth ${state.seed}`;
    sides[1].textContent = state.swipe === "base" ? "Base map" : `Earth ${seed}`;
    clip();
    remember();
  }

  /** Panes move with the map, so their clips move against it. */
  function clip() {
    const { x: width, y: height } = map.getSize();
    const corner = map.containerPointToLayerPoint([0, 0]);
    const end = corner.add([width, height]);
    const line = corner.x + at * width;
    map.getPane("left").style.clip = `rect(${corner.y}px, ${line}px, ${end.y}px, ${corner.x}px)`;
    map.getPane("right").style.clip = `rect(${corner.y}px, ${end.x}px, ${end.y}px, ${line}px)`;
    divider.style.left = `${at * width}px`;
    divider.setAttribute("aria-valuenow", String(Math.round(100 * at)));
    sides[0].style.right = `${(1 - at) * width + 28}px`;
    sides[1].style.left = `${at * width + 28}px`;
  }

  function drag(event) {
    divider.setPointerCapture(event.pointerId);
    divider.onpointermove = (move) => { at = Math.min(0.98, Math.max(0.02, move.clientX / map.getSize().x)); clip(); };
    divider.onpointerup = () => { divider.onpointermove = null; };
  }

  function step(event) {
    const by = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    at = Math.min(0.98, Math.max(0.02, at + by));
    clip();
  }

  function choose() {
    const kind = document.querySelector("[name=with]:checked").value;
    const seed = Math.trunc(Number($("other-seed").value));
    state.swipe = kind === "base" || !Number.isFinite(seed) || seed < 0 ? "base" : String(seed);
    refresh();
  }
  document.querySelectorAll("[name=with]").forEach((input) => { input.onchange = choose; });
  $("other-seed").onchange = () => { document.querySelector("[name=with][value=seed]").checked = true; choose(); };
  return tool;
}
